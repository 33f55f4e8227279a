//! Charts as SVG: what a board and a report show, drawn without a browser. It knows nothing of where data is from.
