//! temp
#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let mut settings = alerts::test::Settings::new(args.next().unwrap());
    settings.processes = args.next().unwrap().parse().unwrap();
    let files: Vec<_> = args.map(Into::into).collect();
    let start = tokio::time::Instant::now();
    let report = alerts::test::run(&files, &settings).await.unwrap();
    println!("{:?} {:?}", report.count(), start.elapsed());
}
