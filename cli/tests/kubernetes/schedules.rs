//! `schedule export kubernetes`, held against a real API server: it takes the objects as they are, and knows each field.

use serde_json::Value;

use crate::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_takes_what_is_exported() {
    let Some(stage) = Stage::new("the_api_server_takes_what_is_exported").await else {
        return;
    };
    let text = std::fs::read_to_string(stage.sandbox.path("opsctl.toml")).expect("the catalogue");
    let more = "[repository.here]\nstore = \"s3://keeps/shop\"\npassword = { env = \"PASSWORD\" }\n\
        [datastore.dump]\nkind = \"command\"\ncommand = [\"dump\"]\n\
        backup = { schedule = \"*/10 8-18 * * MON-FRI\", timezone = \"Europe/Berlin\" }\n\
        [schedule.check]\njob = \"check\"\ncron = \"0 4 * * SUN\"\njitter = \"1h\"\n";
    stage.sandbox.write("opsctl.toml", &format!("{text}{more}"));
    let image = "registry.internal/opsctl:1";
    let export = [
        "schedule",
        "export",
        "kubernetes",
        "--into",
        "jobs",
        "--namespace",
        "shop",
        "--image",
        image,
    ];
    stage.run(&export).await.ended(0);

    let folder = stage.sandbox.path("jobs").display().to_string();
    let apply = ["apply", "--server-side", "--validate=strict", "--filename", &folder];
    stage.plane.kubectl(&apply, "").await.expect("kubectl takes them");
    let job = async |name: &str| -> Value {
        let path = format!("/apis/batch/v1/namespaces/shop/cronjobs/{name}");
        stage.plane.get(&path).await.expect("an answer").json()
    };
    let backup = job("opsctl-backup-dump").await;
    assert_eq!(backup["spec"]["timeZone"], "Europe/Berlin", "{backup}");
    assert_eq!(backup["spec"]["concurrencyPolicy"], "Forbid");
    let check = job("opsctl-check").await;
    assert_eq!(check["spec"]["timeZone"], "Etc/UTC", "{check}");
    let pod = &check["spec"]["jobTemplate"]["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["image"], image);
    assert_eq!(pod["serviceAccountName"], "opsctl-schedule");
    let account = "/api/v1/namespaces/shop/serviceaccounts/opsctl-schedule";
    assert_eq!(stage.plane.get(account).await.expect("an answer").status, 200);
}
