//! The table of all checks of boards. What each does stands in the file of its kind; those of single expressions are
//! `lint`'s.

lint::checks! {
    /// Every check of a board, but for those of single expressions.
    pub CHECKS;

    // The file.
    NOT_JSON, "not-json", Error, "The file cannot be read as JSON.", "Grafana cannot either.";
    NOT_A_BOARD, "not-a-board", Error, "The file is no board.", "Grafana would show nothing.";
    MORE_FINDINGS, "more-findings", Note, "More is found in a file than is shown.", "Mend what is shown and look again.";
    DUPLICATE_FIELD, "duplicate-field", Warning, "An object has a field twice.", "The last one counts, and nobody sees the first.";

    // The board.
    BOARD_TITLE, "board-title", Error, "A board has no title.", "Grafana refuses a board without one.";
    BOARD_DESCRIPTION, "board-description", Note, "A board does not say what it is for.", "Whoever finds it in a search has to open it to know.";
    BOARD_UID, "board-uid", Warning, "A board has no uid of its own.", "Each import makes another board, and links to it break.";
    BOARD_UID_INVALID, "board-uid-invalid", Error, "A uid is not one that Grafana takes.", "At most 40 letters, digits, `-` and `_`; Grafana refuses all others.";
    SCHEMA_OLD, "schema-old", Note, "A board has an old schema version.", "Every Grafana migrates it anew each time it is opened; what that does changes between versions.";
    SCHEMA_ROWS, "schema-rows", Warning, "A board has rows as up to Grafana 4.", "File provisioning of newer versions has trouble with them, and nothing can be placed beside a row.";
    SCHEMA_VERSION, "schema-version", Warning, "A schema version is missing, no number, or unknown.", "Grafana guesses how old the board is and migrates it by that.";
    REFRESH_TOO_FAST, "refresh-too-fast", Warning, "A board asks again more often than data arrives.", "Every viewer repeats every query of it, for the same numbers.";
    TIME_RANGE, "time-range", Error, "The span at first cannot be read, or ends before it begins.", "The board opens empty.";
    TIME_RANGE_FIXED, "time-range-fixed", Warning, "The span at first is a moment in the past.", "Whoever opens it sees what was, and may take it for what is.";
    TIMEZONE, "timezone", Note, "A board has a fixed time zone.", "Its times differ from those of the boards beside it.";

    // Places and numbers.
    PANEL_OVERLAP, "panel-overlap", Warning, "Two panels lie on each other.", "Grafana moves one down, and all below it.";
    PANEL_OFF_GRID, "panel-off-grid", Warning, "A panel does not fit onto the grid of 24 columns.", "Grafana makes it narrower, or nothing of it is seen.";
    DUPLICATE_PANEL_ID, "duplicate-panel-id", Warning, "Two panels have one number.", "Links to one show the other, and so do edits.";

    // Panels.
    PANEL_TITLE, "panel-title", Note, "A panel has no title.", "Nobody can speak of it, and alerts and links cannot name it.";
    PANEL_DESCRIPTION, "panel-description", Note, "A panel does not say what is shown and what is good.", "It helps those alone who know it already.";
    PANEL_UNIT, "panel-unit", Note, "A panel says no unit.", "0.25 may be seconds, a quarter, or a quarter of a per cent.";
    DUPLICATE_PANEL_TITLE, "duplicate-panel-title", Note, "Two panels of a board have one title and ask different things.", "Nobody knows which one is spoken of.";
    PANEL_DEPRECATED, "panel-deprecated", Warning, "A panel is of a kind that Grafana no longer has.", "Grafana replaces it while opening the board, as well as that goes; plugins of AngularJS are not shown at all.";
    PANEL_EMPTY, "panel-empty", Warning, "A panel asks nothing.", "It says \"no data\" for ever.";
    PANEL_HIDDEN, "panel-hidden", Warning, "All queries of a panel are switched off.", "It says \"no data\" for ever.";
    DUPLICATE_REF_ID, "duplicate-ref-id", Error, "Two queries of a panel have one letter.", "Grafana answers one of them.";
    INSTANT_OVER_TIME, "instant-over-time", Warning, "A panel over time asks for the last moment alone.", "It shows one dot.";
    TOO_MANY_PANELS, "too-many-panels", Warning, "A board has more panels than people can look at.", "All that are in view ask at one time; opening it is slow, and it answers no one question.";
    TOO_MANY_QUERIES, "too-many-queries", Warning, "A board asks more questions at one time than a Prometheus likes.", "Every viewer asks them all again at every refresh.";
    THRESHOLD_ORDER, "threshold-order", Warning, "Thresholds do not ascend.", "Grafana stops at the first that is not passed: what comes after a higher one is never reached below it.";
    THRESHOLD_RANGE, "threshold-range", Warning, "A threshold is outside of what the values can be.", "It is never passed.";

    // Sources.
    SOURCE_FIXED, "datasource-fixed", Warning, "A data source is named by its uid.", "The board shows nothing in any other Grafana.";
    SOURCE_BARE, "datasource-bare", Note, "A data source is a bare text, as up to schema version 33.", "A name is found by chance where two are alike; a uid is not.";
    SOURCE_UNKNOWN, "datasource-unknown", Error, "A data source is a variable that the board does not have.", "The panel asks nobody.";

    // Variables.
    VARIABLE_UNDEFINED, "variable-undefined", Error, "A question has a variable that the board does not define.", "It is sent as it stands, which hardly any series matches.";
    VARIABLE_UNUSED, "variable-unused", Note, "Nothing uses a variable.", "Its reader chooses and nothing changes.";
    VARIABLE_DUPLICATE, "variable-duplicate", Error, "Two variables have one name.", "Nobody knows which one counts.";
    VARIABLE_CYCLE, "variable-cycle", Error, "Variables need each other.", "None of them is ever filled.";
    VARIABLE_QUERY, "variable-query", Error, "The question of a variable cannot be read.", "It is never filled, and what uses it shows nothing.";
    VARIABLE_LABEL, "variable-label", Error, "The label that fills a variable is not on its metric.", "The variable is never filled, and what uses it shows nothing.";
    VARIABLE_ALL, "variable-all", Warning, "\"All\" has no value of its own.", "While nothing is found it becomes an empty text, which series that have the label do not match, and with many values a question of many kilobytes.";
    VARIABLE_EQUALITY, "variable-equality", Error, "A variable that may be several values is compared with `=`.", "Several become `(a|b)`, which no label is equal to.";
    VARIABLE_REPEAT, "variable-repeat", Error, "A panel is repeated for a variable that the board does not have.", "It is not shown as it is meant.";

    // Questions.
    QUERY_SYNTAX, "query-syntax", Error, "Prometheus refuses a question.", "The panel shows an error.";
    QUERY_UNFINISHED, "query-unfinished", Error, "A question still has the signs of a template.", "Whatever made the board did not finish it.";
    RATE_INTERVAL, "rate-interval", Note, "A rate over time has a fixed range.", "Zoomed out it skips what lies between two points; with a longer scrape interval it is empty. `$__rate_interval` is always right.";
    INTERVAL_FOR_RATE, "interval-for-rate", Warning, "A rate is taken over `$__interval`.", "Zoomed in it is shorter than two scrapes, and the panel is empty. `$__rate_interval` never is.";
    COUNTER_SHOWN, "counter-shown", Warning, "A counter is drawn over time as it is.", "It only rises and falls back to zero with each restart; what happens when is in its rate.";
    LEGEND_LABEL, "legend-label", Warning, "A legend names a label that the answer does not have.", "Its place stays empty, and lines look alike.";
    UNIT_MISMATCH, "unit-mismatch", Error, "The unit of a panel is not that of its values.", "The numbers are right, and what they are read as is not.";

    // Links.
    LINK_EMPTY, "link-empty", Warning, "A link leads nowhere.", "A click does nothing.";
    LINK_UNKNOWN_BOARD, "link-unknown-board", Note, "A link leads to a board that is not among those that are looked at.", "If it is nowhere else either, a click shows an error.";
    LINK_VARIABLE, "link-variable", Warning, "A link has a variable that the board does not define.", "It leads to an address with the variable's name in it.";

    // Several boards.
    DUPLICATE_UID, "duplicate-uid", Error, "Two boards have one uid.", "Provisioning refuses both; pushed, one overwrites the other.";
    DUPLICATE_TITLE, "duplicate-title", Warning, "Two boards have one title.", "In one folder provisioning refuses both; in two nobody knows which is which.";
    V1_OVER_V2, "v1-over-v2", Error, "A board is there in the first model and in the second.", "Whichever is written last wins, and the first model loses what only the second can say.";
}
