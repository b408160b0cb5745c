"""The site's charts: each module draws one kind from plain values, as inline SVG whose colours are classes of ``site.css``."""
