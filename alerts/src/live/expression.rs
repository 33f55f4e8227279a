//! Whether two expressions say the same, whatever their layout: Prometheus prints a rule anew when it loads it.

/// Whether both are the same query.
pub(super) fn same(one: &str, other: &str) -> bool {
    normal(one) == normal(other)
}

/// The query without white space and comments outside of strings, where it cannot be read.
fn normal(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut signs = text.chars();
    let mut quote = None;
    while let Some(sign) = signs.next() {
        match (quote, sign) {
            (None, '#') => {
                // Up to the end of the line.
                signs.by_ref().find(|sign| *sign == '\n');
            }
            (None, sign) if sign.is_whitespace() => {}
            (None, '"' | '\'' | '`') => {
                quote = Some(sign);
                plain.push(sign);
            }
            (Some(_), '\\') => {
                plain.push(sign);
                plain.extend(signs.next());
            }
            (Some(open), sign) if sign == open => {
                quote = None;
                plain.push(sign);
            }
            _ => plain.push(sign),
        }
    }
    plain
}
