//! What Prometheus says of the same text: whether it is a query, which tree it is, how it is printed.

#[path = "prometheus/corpus.rs"]
mod corpus;
#[path = "prometheus/judge.rs"]
mod judge;
#[path = "prometheus/mutate.rs"]
mod mutate;
#[path = "prometheus/tree.rs"]
mod tree;

use promql::Dialect;

use crate::{corpus::Expression, judge::Judge};

/// Every expression of the corpus: the same verdict, the same tree.
#[tokio::test]
async fn every_expression_of_the_corpus_is_read_as_prometheus_reads_it() {
    const TEST: &str = "every_expression_of_the_corpus_is_read_as_prometheus_reads_it";
    let expressions = corpus::all(TEST);
    if let Some(judge) = Judge::start(TEST).await {
        judge.hold(&expressions).await;
    }
}

/// Texts that were queries before a few bytes changed: about half of them still are.
#[tokio::test]
async fn mutated_expressions_are_read_as_prometheus_reads_them() {
    const TEST: &str = "mutated_expressions_are_read_as_prometheus_reads_them";
    let expressions = corpus::all(TEST);
    let Some(judge) = Judge::start(TEST).await else { return };
    let seed = mutate::seed();
    println!("OPSCTL_SEED={seed}");
    let count = mutate::count();
    let mutated: Vec<Expression> = mutate::mutations(&expressions, seed, count);
    judge.hold(&mutated).await;
    let taken = mutated
        .iter()
        .filter(|one| Dialect::all_features().parse(&one.text).is_ok())
        .count();
    assert!(
        taken * 10 > count,
        "only {taken} of {count} mutations are queries: nothing is tested"
    );
}

/// Queries of real boards: with something in the place of each variable they are queries to Prometheus, or refused by
/// both; and what is then a query is the same tree to both.
#[tokio::test]
async fn queries_of_boards_are_read_with_their_variables() {
    const TEST: &str = "queries_of_boards_are_read_with_their_variables";
    let expressions = corpus::of_boards(TEST);
    let Some(judge) = Judge::start(TEST).await else { return };
    let (mut differences, mut replaced) = (Vec::new(), Vec::new());
    for Expression { origin, text } in &expressions {
        let mut takes = false;
        for other in ["v", "1", "5m"] {
            let text = corpus::substituted(text, other);
            takes |= judge.takes(&text).await;
            let origin = origin.clone();
            replaced.push(Expression { origin, text });
        }
        let ours = Dialect::grafana().parse(text);
        if ours.is_ok() != takes {
            differences.push(format!("{origin}: {text:?}: Prometheus {takes}, ours {:?}", ours.err()));
        }
    }
    println!("{} queries of boards", expressions.len());
    assert!(
        differences.is_empty(),
        "{} of {}:\n{}",
        differences.len(),
        expressions.len(),
        differences.join("\n")
    );
    judge.hold(&replaced).await;
}

/// Another parser of the same language, on what it is known to read: without the features that it lacks.
#[test]
fn another_parser_takes_what_ours_takes() {
    const TEST: &str = "another_parser_takes_what_ours_takes";
    const LACKS: [&str; 12] = [
        "</", ">/", "anchored", "smoothed", "step()", "range()", "max_of", "min_of", "fill", "info(", "start()",
        "end()",
    ];
    let expressions = corpus::all(TEST);
    let (mut agreed, mut differences) = (0, Vec::new());
    for Expression { origin, text } in &expressions {
        let Ok(query) = promql::parse(text) else { continue };
        if LACKS.iter().any(|lacking| text.contains(lacking)) || has_computed_durations(&query.expr) {
            continue;
        }
        match promql_parser::parser::parse(text) {
            Ok(_) => agreed += 1,
            Err(error) => differences.push(format!("{origin}: {text:?}: {error}")),
        }
    }
    let known = differences.len() * 100 <= expressions.len();
    assert!(
        known,
        "{agreed} agree, {} differ:\n{}",
        differences.len(),
        differences.join("\n")
    );
}

fn has_computed_durations(expr: &promql::ast::Expr) -> bool {
    use promql::ast::{Duration, Expr};
    let computed = |duration: &Duration| !matches!(duration, Duration::Literal(number) if number.duration);
    let mut found = false;
    expr.walk(&mut |expr| {
        found |= match expr {
            Expr::Selector(selector) => {
                let offset = selector.modifiers.offset.as_ref();
                selector.range.as_ref().is_some_and(|range| computed(&range.duration)) || offset.is_some()
            }
            Expr::Subquery(subquery) => computed(&subquery.range) || subquery.step.as_ref().is_some_and(computed),
            _ => false,
        };
    });
    found
}
