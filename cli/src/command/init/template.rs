//! The opsctl.toml that `init` writes: what was answered, and as comments what could be said besides.

use std::fmt::Write as _;
use std::path::PathBuf;

/// What is known of the service.
#[derive(Debug, Clone)]
pub(super) struct Answers {
    pub(super) service: String,
    pub(super) command: Vec<String>,
    pub(super) build: Option<Vec<String>>,
    pub(super) health: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) replicas: u32,
    pub(super) sqlite: Option<PathBuf>,
    pub(super) files: Option<PathBuf>,
}

/// The file's text.
pub(super) fn render(answers: &Answers) -> String {
    let name = &answers.service;
    let mut text = format!(
        "# What opsctl keeps up. All keys: opsctl help config\n\
         version = 1\n\
         default_env = \"local\"\n\n\
         [env.local]\n\
         platform = \"local\"\n\
         default_service = {}\n\
         repository = \"here\"\n\n\
         # [env.production]\n\
         # protected = true            # dangerous jobs ask for the typed name\n\n\
         # Encrypted; restic reads it too. Without the password no backup can be read: keep a copy elsewhere.\n\
         [repository.here]\n\
         store = \"file:.opsctl/repo\"   # better: another disk\n\
         password = {{ file = \".opsctl/password\" }}\n",
        string(name)
    );
    let mut uses = Vec::new();
    let mut store = |suffix: &str, kind: &str, path: &PathBuf, more: &str| {
        let store = format!("{name}-{suffix}");
        let path = string(&path.display().to_string());
        let _ = write!(
            text,
            "\n[datastore.{store}]\nkind = \"{kind}\"\npath = {path}   # relative to this file\n{more}"
        );
        uses.push(store);
    };
    if let Some(path) = &answers.sqlite {
        store("db", "sqlite", path, "# objectives = { rpo = \"1h\", rto = \"10m\" }\n");
    }
    if let Some(path) = &answers.files {
        store("files", "files", path, "# exclude = [\"*.tmp\"]\n");
    }
    if uses.is_empty() {
        let _ = write!(
            text,
            "\n# What `opsctl backup` saves. Then name it in the service's `uses`.\n\
             # [datastore.{name}-db]\n# kind = \"sqlite\"              # or files\n# path = \".opsctl/data/{name}/{name}.db\"\n"
        );
    }
    let _ = write!(text, "\n[service.{name}]\n");
    if !uses.is_empty() {
        let _ = writeln!(text, "uses = {}", array(&uses));
    }
    text.push_str("# depends_on = [\"other\"]      # it is told OTHER_URL, through the proxy\n");
    match &answers.health {
        Some(path) => {
            let _ = writeln!(text, "health = {{ http = {} }}", string(path));
        }
        None => text
            .push_str("# health = { http = \"/healthz\" }   # without it: ready when its port accepts connections\n"),
    }
    text.push_str("objectives = { availability = \"99.9%\" }   # drills and canaries are judged by it; also latency_p95 = \"300ms\"\n");
    if let Some(path) = &answers.health {
        let _ = writeln!(
            text,
            "probe = {{ http = {}, rate = \"20/s\" }}   # what drills send when nobody else does",
            string(path)
        );
    }
    let _ = write!(
        text,
        "\n# The service listens on the address in HTTP_ADDR (host:port) and keeps its data in DATA_DIR. One that wants a port\n\
         # in another way: command = [\"sh\", \"-c\", \"exec serve --port ${{HTTP_ADDR##*:}}\"]\n\
         [service.{name}.local]\ncommand = {}\n",
        array(&answers.command)
    );
    match &answers.build {
        Some(build) => {
            let _ = writeln!(text, "build = {}", array(build));
        }
        None => text.push_str("# build = [\"make\"]\n"),
    }
    let _ = writeln!(text, "replicas = {}", answers.replicas);
    match answers.port {
        Some(port) => {
            let _ = writeln!(
                text,
                "ports = {{ http = {port} }}   # the stable port; instances get ports of their own behind it"
            );
        }
        None => text.push_str("# ports = { http = 8080 }     # the stable port; without it one is chosen and kept\n"),
    }
    text.push_str("# env = { LOG_LEVEL = \"info\" }\n");
    let _ = write!(
        text,
        "\n# What runs as a new version, for `opsctl deploy canary --version V`\n# [service.{name}.canary]\n# command = [\"./{name}-{{version}}\"]\n"
    );
    text
}

fn string(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn array(words: &[String]) -> String {
    format!(
        "[{}]",
        words.iter().map(|word| string(word)).collect::<Vec<_>>().join(", ")
    )
}
