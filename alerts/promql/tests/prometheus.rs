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
