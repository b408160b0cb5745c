/* The page's own behaviour. Text from outside reaches the document as text nodes alone: nothing here parses HTML. */
"use strict";

const MINUS = "\u2212", DASH = "\u2013";
const SVG = "http://www.w3.org/2000/svg";

function make(name, cls, ...content) {
  const node = document.createElement(name);
  if (cls) node.className = cls;
  node.append(...content);
  return node;
}

function drawn(name, attributes) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

function points(value, signed) {
  const text = (Math.round(10 * value) / 10 + 0).toFixed(1);
  return (signed && value >= 0 ? "+" : "") + text.replace("-", MINUS);
}

function pValue(p) {
  if (p === null) return DASH;
  if (p >= 0.001) return p.toFixed(3);
  const [digits, power] = p.toExponential(1).split("e");
  return `${digits}e${power}`.replace("-", MINUS);
}

function compact(value) {
  for (const [size, unit] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]])
    if (value >= size) return `${Number((value / size).toPrecision(3))} ${unit}`;
  return String(Number(value.toPrecision(3)));
}

/* ------------------------------------------------------------------------------------------------ cells of the table */

function link(text, href, cls) {
  const node = make("a", cls, text);
  node.href = href;
  return node;
}

function number(name, signed) {
  return (td, row) => {
    const found = row[name];
    if (!found) return td.replaceChildren(DASH);
    td.replaceChildren(points(found[0], signed));
    if (found[1] !== null) td.append(make("span", "ci two", `[${points(found[1], signed)}, ${points(found[2], signed)}]`));
  };
}

function liftStrip(found) {
  const svg = drawn("svg", { viewBox: "-100 -7 200 14", class: "strip", "aria-hidden": "true", preserveAspectRatio: "none" });
  const [value, low, high] = found;
  const reverse = value < 0 ? " reverse" : "";
  svg.append(drawn("rect", { x: Math.min(0, value), y: -4.5, width: Math.max(Math.abs(value), 0.8), height: 9, class: `fill${reverse}` }));
  if (low !== null) svg.append(drawn("line", { x1: low, x2: high, y1: 0, y2: 0, class: "range" }));
  svg.append(drawn("line", { x1: 0, x2: 0, y1: -7, y2: 7, class: "zero" }));
  return svg;
}

function cells(td, row) {
  let before = "ok";
  td.replaceChildren();
  for (const [seed, status, href] of row.cells) {
    const said = status.replaceAll("_", " ");
    if (status !== before) td.append(make("span", `ci two ${status}`, said));
    const node = link(`s${seed}`, href);
    node.setAttribute("aria-label", `cell at seed ${seed}, ${said}`);
    td.append(node, " ");
    before = status;
  }
}

/* What tells rows apart beside attack and defense: task, model, or neither. */
const WHERE = [];

const COLUMNS = [
  { title: "defense", lead: true, text: (r) => `${r.defense} ${r.family}`, sort: (r) => r.defense,
    fill: (td, r) => td.replaceChildren(link(r.defense, r.cells[r.first][2], "name"), make("span", "ci two", r.version === null ? r.family : `${r.family} · v${r.version}`)) },
  { title: "attack", text: (r) => `${r.attack} ${r.task} ${r.model}`,
    fill: (td, r) => td.replaceChildren(r.attack, make("span", "ci two", WHERE.map((axis) => r[axis]).join(" · "))) },
  { title: "knows", wide: true, text: (r) => r.knows.join(" ") || "nothing",
    fill: (td, r) => td.replaceChildren(...(r.knows.length ? r.knows.map((k) => make("span", "badge", k)) : [make("span", "badge none", "nothing")])) },
  { title: "clean", cls: "n", value: "clean",
    fill: (td, r) => { number("clean", false)(td, r); if (r.clean) td.prepend(make("span", "ci", `${r.metric} `)); } },
  { title: "Δ", cls: "n", value: "delta",
    fill: (td, r) => {
      number("delta", true)(td, r);
      if (r.within === null) return;
      const mark = make("span", `within ${r.within ? "yes" : "no"}`, r.within ? " ✓" : " ?");
      mark.title = r.within ? "a loss of the margin or more is excluded" : "a loss of the margin is not excluded";
      td.firstChild.after(mark);
    } },
  { title: "ASR", cls: "n", value: "asr", fill: number("asr", false) },
  { title: "ASR₀", cls: "n", value: "reference", fill: number("reference", false) },
  { title: "lift", cls: "n", value: "lift", wide: true,
    fill: (td, r) => { number("lift", true)(td, r); if (r.lift) td.append(liftStrip(r.lift)); } },
  { title: "p", cls: "n", sort: (r) => r.p, number: true, text: () => "", fill: (td, r) => td.replaceChildren(pValue(r.p)) },
  { title: "cost", cls: "n", sort: (r) => r.tokens, number: true, text: () => "",
    fill: (td, r) => {
      td.replaceChildren(r.tokens === null ? DASH : `${compact(r.tokens)} tok`);
      if (r.seconds !== null) td.append(make("span", "ci two", `${Math.round(r.seconds)} s`));
    } },
  { title: "cells", cls: "seeds", sort: (r) => r.cells.length, number: true, text: (r) => r.cells.map((c) => c[1].replaceAll("_", " ")).join(" "), fill: cells },
];

function column(one) {
  const text = one.text ?? (() => "");
  const sort = one.sort ?? (one.value ? (r) => (r[one.value] ? r[one.value][0] : null) : text);
  return {
    title: one.title,
    className: one.cls ?? "",
    data: null,
    type: one.value || one.number ? "number-last" : "string",
    render: (_, kind, row) => (kind === "display" ? "" : kind === "filter" ? text(row) : sort(row)),
    createdCell: (td, _, row) => {
      if (one.lead) td.classList.add("lead-cell");
      else td.dataset.label = one.title;
      if (one.wide) td.classList.add("wide");
      td.setAttribute("role", "cell");
      one.fill(td, row);
    },
  };
}

/* ----------------------------------------------------------------------------------------------------------- the table */

function showBoard() {
  const sent = JSON.parse(document.getElementById("rows").textContent);
  const rows = sent.rows.map((values) => Object.fromEntries(sent.fields.map((field, place) => [field, values[place]])));
  WHERE.push(...["task", "model"].filter((axis) => new Set(rows.map((row) => row[axis])).size > 1));
  // An undefined number stands last in either direction.
  const last = (sign) => (a, b) => (a === b ? 0 : a === null ? 1 : b === null ? -1 : sign * (a - b));
  DataTable.type("number-last", { order: { asc: last(1), desc: last(-1) } });
  const table = new DataTable("#board", {
    data: rows,
    columns: COLUMNS.map(column),
    autoWidth: false,
    deferRender: true,
    typeDetect: false,
    order: [],
    pageLength: matchMedia("(max-width: 720px)").matches ? 25 : 50,
    lengthMenu: [25, 50, 100, 500],
    layout: { topStart: null, topEnd: null, bottomStart: ["info", "pageLength"], bottomEnd: "paging" },
    createdRow: (tr) => tr.setAttribute("role", "row"),
    language: { info: "_START_ to _END_ of _TOTAL_ rows", infoFiltered: "(of _MAX_)", lengthMenu: "_MENU_ a page", zeroRecords: "No row fits these filters." },
  });
  filterBy(table, rows);
  sortBy(table);
  let length = table.page.len();
  addEventListener("beforeprint", () => { length = table.page.len(); table.page.len(2000).draw(); });
  addEventListener("afterprint", () => table.page.len(length).draw());
  return table;
}

function filterBy(table, rows) {
  const form = document.getElementById("filters");
  const chosen = {};
  table.search.fixed("axes", (_, row) =>
    Object.entries(chosen).every(([axis, wanted]) => (axis === "knows" ? row.knows.includes(wanted) : row[axis] === wanted)));
  for (const select of form.querySelectorAll("select[data-axis]")) {
    const axis = select.dataset.axis;
    const values = axis === "knows" ? [...new Set(rows.flatMap((r) => r.knows))].sort() : [...new Set(rows.map((r) => r[axis]))];
    // Options carry places, not names, and the names come from the rows: both lists are in the same order.
    const named = new Map([...select.options].slice(1).map((option) => [option.value, values.find((v) => v === option.textContent) ?? ""]));
    select.addEventListener("change", () => {
      if (select.value === "") delete chosen[axis];
      else chosen[axis] = named.get(select.value);
      table.draw();
    });
  }
  const search = document.getElementById("search");
  search.addEventListener("input", () => table.search(search.value).draw());
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => {
    for (const axis of Object.keys(chosen)) delete chosen[axis];
    table.search("").order([]).draw();
  });
}

function sortBy(table) {
  const select = document.getElementById("sort");
  select.append(new Option("as given", ""));
  COLUMNS.forEach((one, place) => {
    if (one.title === "knows") return;
    select.append(new Option(`${one.title} ↑`, `${place} asc`), new Option(`${one.title} ↓`, `${place} desc`));
  });
  select.addEventListener("change", () => {
    const [place, direction] = select.value.split(" ");
    table.order(direction ? [[Number(place), direction]] : []).draw();
  });
}

/* ------------------------------------------------------------------------------------------------------------ the rest */

function highlightLegends() {
  // Several legends show the same defenses: all of them go together.
  const buttons = [...document.querySelectorAll("button[data-legend]")];
  const looks = new Map(buttons.map((button) => [button.dataset.legend, button.querySelector("svg").firstElementChild.getAttribute("class")]));
  const choose = (name) => {
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.legend === name));
    for (const point of document.querySelectorAll(".point")) {
      const mark = point.querySelector(".mark").getAttribute("class");
      point.classList.toggle("faded", name !== null && mark !== looks.get(name));
    }
  };
  for (const button of buttons)
    button.addEventListener("click", () => choose(button.getAttribute("aria-pressed") === "true" ? null : button.dataset.legend));
}

function copyCommands() {
  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const source = document.getElementById(button.dataset.copy);
      try {
        await navigator.clipboard.writeText(source.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(source);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }
}

function openForPrint() {
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const one of closed) one.open = true;
  });
  addEventListener("afterprint", () => { for (const one of closed) one.open = false; });
}

if (document.getElementById("board")) window.board = showBoard();
highlightLegends();
copyCommands();
openForPrint();
