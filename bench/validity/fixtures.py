"""Small own functions in three languages: validity is judged on them where no published files are given, and examples are made
of them.

Each stands alone: the C ones compile after the standard headers, the Java ones inside a class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

PYTHON: Final = (
    '''def load_config(path, default=None):
    """Read settings from a file."""
    settings = {}
    with open(path) as file:
        for line in file:
            if "=" not in line:
                continue
            key, value = line.split("=", 1)
            settings[key.strip()] = value.strip()
    if not settings:
        return default
    return settings
''',
    """def moving_average(values, width=3):
    result = []
    total = 0
    for index, value in enumerate(values):
        total = total + value
        if index >= width:
            total = total - values[index - width]
        result.append(total / min(index + 1, width))
    return result
""",
    """@cached
def count_words(text, *, minimum=2):
    counts = {}
    for word in text.lower().split():
        if len(word) < minimum:
            continue
        counts[word] = counts.get(word, 0) + 1
    return sorted(counts.items(), key=lambda pair: -pair[1])
""",
    """async def fetch_all(client, urls):
    pages = []
    for url in urls:
        page = await client.get(url)
        if page.status != 200:
            raise RuntimeError("status %d" % page.status)
        pages.append(page)
    return pages
""",
    """def binary_search(items, wanted):
    low = 0
    high = len(items) - 1
    while low <= high:
        middle = (low + high) // 2
        if items[middle] == wanted:
            return middle
        if items[middle] < wanted:
            low = middle + 1
        else:
            high = middle - 1
    return -1
""",
    """def flatten(tree):
    if tree is None:
        return []
    left = flatten(tree.left)
    right = flatten(tree.right)
    return left + [tree.value] + right
""",
    """def make_counter(start=0):
    count = start

    def step(by=1):
        nonlocal count
        count += by
        return count

    return step
""",
    """def clip(value, low, high):
    # keep the value in its range
    if value < low:
        return low
    return high if value > high else value
""",
    """def read_matrix(rows):
    matrix = [[float(cell) for cell in row.split(",")] for row in rows if row]
    width = max(len(row) for row in matrix)
    for row in matrix:
        while len(row) < width:
            row.append(0.0)
    return matrix
""",
    """def gcd(a, b): return a if b == 0 else gcd(b, a % b)
""",
    """def retry(action, times=3):
    last = None
    for attempt in range(times):
        try:
            return action()
        except OSError as error:
            last = error
            print("attempt", attempt, "failed")
    raise last
""",
    """def checksum(data):
    value = 17
    for byte in data:
        value = (value * 31 + byte) % 65521
    return value
""",
)

JAVA: Final = (
    """public static int sumOfEven(int[] values) {
    int total = 0;
    for (int i = 0; i < values.length; i++) {
        if (values[i] % 2 == 0) {
            total += values[i];
        }
    }
    return total;
}
""",
    """static String join(java.util.List<String> parts, String separator) {
    StringBuilder builder = new StringBuilder();
    boolean first = true;
    for (String part : parts) {
        if (!first) {
            builder.append(separator);
        }
        builder.append(part);
        first = false;
    }
    return builder.toString();
}
""",
    """private static long factorial(int n) {
    if (n < 2) {
        return 1L;
    }
    return n * factorial(n - 1);
}
""",
    """static void copy(java.io.InputStream in, java.io.OutputStream out) throws java.io.IOException {
    byte[] buffer = new byte[4096];
    int count;
    while ((count = in.read(buffer)) != -1) {
        out.write(buffer, 0, count);
    }
    out.flush();
}
""",
    """static int indexOf(String[] items, String wanted) {
    int index = 0;
    while (index < items.length) {
        if (items[index].equals(wanted)) {
            return index;
        }
        index++;
    }
    return -1;
}
""",
    """@SuppressWarnings("unchecked")
static <T extends Comparable<T>> T largest(java.util.List<T> items) {
    T best = items.get(0);
    for (T item : items) {
        best = item.compareTo(best) > 0 ? item : best;
    }
    return best;
}
""",
    """static int parse(String text, int fallback) {
    try {
        return Integer.parseInt(text.trim());
    } catch (NumberFormatException error) {
        return fallback;
    }
}
""",
    """static String kind(int code) {
    String name;
    switch (code) {
        case 1:
            name = "one";
            break;
        case 2:
            name = "two";
            break;
        default:
            name = "many";
    }
    return name;
}
""",
    """static int[][] identity(int size) {
    int[][] matrix = new int[size][size];
    for (int row = 0; row < size; row++) {
        for (int column = 0; column < size; column++) {
            matrix[row][column] = row == column ? 1 : 0;
        }
    }
    return matrix;
}
""",
    """static java.util.Map<String, Integer> counts(String text) {
    java.util.Map<String, Integer> found = new java.util.TreeMap<>();
    for (String word : text.split(" ")) {
        found.merge(word, 1, (a, b) -> a + b);
    }
    return found;
}
""",
    """static boolean isPalindrome(String text) { return new StringBuilder(text).reverse().toString().equals(text); }
""",
    """static double mean(double... values) {
    double total = 0.0;
    int count = 0;
    do {
        total += values[count];
        count = count + 1;
    } while (count < values.length);
    return total / count;
}
""",
)

C: Final = (
    """static int sum_positive(const int *values, int count)
{
    int total = 0;
    int i;

    for (i = 0; i < count; i++) {
        if (values[i] > 0)
            total += values[i];
    }
    return total;
}
""",
    """char *copy_text(const char *text)
{
    size_t length = strlen(text);
    char *copy = malloc(length + 1);
    if (!copy)
        return NULL;
    memcpy(copy, text, length + 1);
    return copy;
}
""",
    """unsigned long factorial(unsigned n)
{
    return n < 2 ? 1UL : n * factorial(n - 1);
}
""",
    """int read_lines(FILE *file, int limit)
{
    char line[256];
    int count = 0;
    while (fgets(line, sizeof(line), file) != NULL) {
        count++;
        if (count >= limit) {
            break;
        }
    }
    return count;
}
""",
    """static void swap(int *a, int *b) { int keep = *a; *a = *b; *b = keep; }
""",
    """int binary_search(const int *items, int count, int wanted)
{
    int low = 0, high = count - 1;
    while (low <= high) {
        int middle = low + (high - low) / 2;
        if (items[middle] == wanted) {
            return middle;
        } else if (items[middle] < wanted) {
            low = middle + 1;
        } else {
            high = middle - 1;
        }
    }
    return -1;
}
""",
    """const char *kind_of(int code)
{
    switch (code) {
    case 0:
        return "none";
    case 1:
        return "some";
    default:
        return "many";
    }
}
""",
    """int clamp(int value, int low, int high)
{
    /* keep the value in its range */
    if (value < low)
        value = low;
    if (value > high)
        value = high;
    return value;
}
""",
    """static int parse_header(const unsigned char *data, int size, int *version)
{
    int flags = 0;
    if (size < 8)
        return -1;
    *version = data[0] << 8 | data[1];
    flags = data[2];
    if (flags & 0x10)
        goto fail;
    return flags;
fail:
    *version = 0;
    return -1;
}
""",
    """void fill(double *out, int rows, int columns, double start)
{
    int row, column;
    double value = start;
    for (row = 0; row < rows; ++row) {
        for (column = 0; column < columns; ++column) {
            out[row * columns + column] = value;
            value += 0.5;
        }
    }
}
""",
    """unsigned checksum(const unsigned char *data, size_t length)
{
    unsigned value = 17;
    size_t i = 0;
    do {
        if (i >= length)
            break;
        value = value * 31 + data[i];
        i++;
    } while (1);
    return value;
}
""",
    """#define LIMIT 16
static int count_words(const char *text)
{
    int words = 0, inside = 0;
    for (; *text; text++) {
        if (*text == ' ') {
            inside = 0;
        } else if (!inside) {
            inside = 1;
            words++;
        }
    }
    return words > LIMIT ? LIMIT : words;
}
""",
)

FIXTURES: Final[Mapping[str, tuple[str, ...]]] = {"python": PYTHON, "java": JAVA, "c": C}
