//! `opsctl help`: help of a command, or one of the topics that belong to no command.

use crate::cli;
use crate::config::suggestion;
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::exit::Exit;
use crate::output::Paint;

/// Explain a command, or a topic such as exit-codes
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The words of a command, or a topic: exit-codes, environment, json, config
    #[arg(value_name = "TOPIC")]
    words: Vec<String>,
}

/// A topic: its word and its text.
type Topic = (&'static str, fn() -> String);

const TOPICS: [Topic; 4] = [
    ("exit-codes", exit_codes),
    ("environment", environment),
    ("json", json),
    ("config", config),
];

/// Every topic with its text, for the reference page.
pub(super) fn topics() -> impl Iterator<Item = (&'static str, String)> {
    TOPICS.iter().map(|(name, text)| (*name, text()))
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let mut tree = cli::unfolded(cli::tree(context.out.width));
    if let [topic] = args.words.as_slice()
        && let Some((_, text)) = TOPICS.iter().find(|(name, _)| name == topic)
    {
        context.out.data(&text())?;
        return Ok(Exit::Done);
    }
    tree.build();
    let mut command = &mut tree;
    for word in &args.words {
        let known: Vec<String> = command
            .get_subcommands()
            .filter(|known| !known.is_hide_set())
            .map(|known| known.get_name().to_owned())
            .collect();
        let Some(next) = command.find_subcommand_mut(word) else {
            let topics = TOPICS.iter().map(|(name, _)| *name);
            let near = suggestion(word, known.iter().map(String::as_str).chain(topics));
            return Err(
                Failure::usage("unknown_topic", format!("there is no command or topic `{word}`"))
                    .help(near.map_or_else(|| "opsctl --help".to_owned(), |near| format!("did you mean `{near}`?"))),
            );
        };
        command = next;
    }
    let help = if args.words.is_empty() {
        command.render_help()
    } else {
        command.render_long_help()
    };
    let text = if context.out.stdout == Paint::Ansi {
        help.ansi().to_string()
    } else {
        help.to_string()
    };
    context.out.data(&text)?;
    Ok(Exit::Done)
}

fn exit_codes() -> String {
    let mut text = String::from("Exit codes, the same for every command. An unknown number is a failure.\n\n");
    for exit in Exit::ALL {
        text.push_str(&format!("  {:>3}  {}\n", exit.number(), exit.meaning()));
    }
    text.push_str(
        "\n\"It failed\" and \"the answer is no\" differ on purpose: 4 means that opsctl did its work and found\n\
         the service unhealthy, the backup damaged, the canary worse. 9 means that it could not tell.\n",
    );
    text
}

fn environment() -> String {
    "Variables that opsctl reads. Flags stand above them, the file below.\n\n  \
     OPSCTL_ENV               the environment, as -e/--env\n  \
     OPSCTL_CONFIG            the configuration file, as --config\n  \
     OPSCTL_STATE             the folder of opsctl's state, by itself `.opsctl` beside the file\n  \
     OPSCTL_REPOSITORY        the environment's repository\n  \
     OPSCTL_DEFAULT_SERVICE   the environment's default_service\n  \
     OPSCTL_PROMETHEUS        the environment's prometheus\n  \
     OPSCTL_ALERTMANAGER      the environment's alertmanager\n  \
     OPSCTL_LOKI              the environment's loki\n  \
     OPSCTL_TRACES            the environment's traces\n  \
     OPSCTL_SERVICE__NAME__KEY[__KEY…]\n                           \
     one value of a service, for example OPSCTL_SERVICE__ORDERS__LOCAL__REPLICAS=3\n  \
     OPSCTL_DATASTORE__NAME__KEY[__KEY…]\n                           \
     one value of a datastore\n  \
     NO_COLOR                 no colours\n  \
     CLICOLOR_FORCE           colours also without a terminal\n  \
     KUBECONFIG               files with the contexts of clusters, where the catalogue names none\n  \
     TERM=dumb                no colours, no redrawn lines\n\n\
     In names a dash is an underscore. No variable sets a command, `protected` or `server`.\n\n\
     What a service is told by `opsctl up`: HTTP_ADDR, GRPC_ADDR, ADMIN_ADDR, DATA_DIR, SERVICE_VERSION,\n\
     INSTANCE_ID, TRACES_FILE, NAME_URL and NAME_GRPC_URL of every service in its depends_on, then its local.env.\n\
     ADMIN_WRITES=1 there lets the admin listener take changes (policy force, policy reset).\n"
        .to_owned()
}

fn json() -> String {
    "Every command takes --json: one document on stdout, or one a line where it streams (logs -f,\n\
     status --watch, run attach). Every document has `schema` (opsctl.backup/v1) and `type`.\n\n  \
     names    snake_case; what is absent is null\n  \
     times    RFC 3339 in UTC\n  \
     spans    …_seconds, sizes …_bytes, shares …_ratio from 0 to 1\n  \
     errors   one opsctl.error/v1 on stderr: code, message, details, causes, help, exit_code\n  \
     warnings opsctl.warning/v1 on stderr\n\n\
     Within v1 fields and enum values are only added. --json asks nothing and draws nothing.\n\n\
     Example:\n  opsctl status --json | jq '.services[] | select(.ready < .desired)'\n"
        .to_owned()
}

fn config() -> String {
    "opsctl.toml is found upwards from the working directory. `opsctl init` writes one with comments.\n\
     `opsctl config check` tells everything that is wrong with it, `opsctl config show` where each value is from.\n\n  \
     version = 1\n  \
     default_env = \"local\"\n  \
     include = [\"services/*/opsctl.toml\"]     # files that hold only service, datastore and team tables\n\n  \
     [env.local]                              # -e local, or OPSCTL_ENV=local\n  \
     platform = \"local\"                       # local, kubernetes\n  \
     default_service = \"shop\"\n  \
     repository = \"here\"\n  \
     protected = false                        # true: dangerous jobs ask for the typed name\n  \
     loki = \"http://loki:3100\"               # where `logs --trace` looks, else in files here\n  \
     traces = \"http://jaeger:16686\"          # where `trace` looks: Jaeger or Tempo\n\n  \
     [env.production]\n  \
     platform = \"kubernetes\"\n  \
     clusters = [\"eu\"]                        # reads take all of them, changes the one of --cluster\n  \
     prometheus = \"http://prometheus:9090\"   # where canaries and drills count requests\n  \
     alertmanager = \"http://am:9093\"         # else the one that Prometheus sends alerts to\n\n  \
     [cluster.eu]\n  \
     context = \"prod-eu\"                      # of the kubeconfig; the current one is never used\n  \
     server = \"https://eu.internal\"           # the address that it must lead to\n  \
     image = \"registry.internal/opsctl:1\"    # judges canaries there\n\n  \
     [repository.here]\n  \
     store = \"file:.opsctl/repo\"             # or \"s3://BUCKET/PREFIX\", with endpoint, region, credentials\n  \
     password = { file = \".opsctl/password\" } # or { command = [ … ] }, { env = \"NAME\" }\n\n  \
     [datastore.shop-db]\n  \
     kind = \"sqlite\"                          # sqlite, files, command\n  \
     path = \".opsctl/data/shop/shop.db\"       # relative to this file\n  \
     backup = { schedule = \"0 2 * * *\", timezone = \"Europe/Berlin\", jitter = \"10m\" }\n  \
     objectives = { rpo = \"15m\", rto = \"30m\", prove_every = \"7d\" }\n  \
     canary = { sql = \"select max(created_at) from orders\" } # how new is what a drill restores\n  \
     [[datastore.shop-db.assert]]              # or min_rows; of files: path, min_files, min_bytes\n  \
     sql = \"select count(*) from orders\"\n  \
     at_least = 1                              # or at_most, equals, between = [1, 9]\n\n  \
     [schedule.weekly-check]                  # run by `opsctl schedule run`\n  \
     job = \"check\"                            # backup, restore-drill, forget, prune, check, copy, cleanup\n  \
     cron = \"0 4 * * SUN\"\n\n  \
     [cleanup.old-carts]\n  \
     datastore = \"shop-db\"\n  \
     table = \"carts\"\n  \
     where = \"seen_at < :cutoff\"\n  \
     cutoff = { older_than = \"30d\", as = \"seconds\" }\n  \
     schedule = \"@daily\"\n\n  \
     [defaults.service]\n  \
     objectives = { availability = \"99.9%\", latency_p95 = \"300ms\" }\n\n  \
     [service.shop]\n  \
     uses = [\"shop-db\"]\n  \
     depends_on = []\n  \
     health = { http = \"/healthz\" }           # or { grpc = \"\" }; neither: a TCP connect\n  \
     local = { command = [\"./shop\"], build = [\"make\"], replicas = 2, env = {}, ports = { http = 8080 } }\n  \
     probe = { http = \"/healthz\", rate = \"20/s\" }\n  \
     canary = { command = [\"./shop-{version}\"] }\n  \
     kubernetes = { namespace = \"shop\", image = \"registry.internal/shop:1\" }\n  \
     metrics = \"opsctl\"                      # otel-http, traefik; or sli = { total, errors, slow }\n  \
     env.production = { objectives = { availability = \"99.95%\" } }\n\n\
     Environment tables merge key by key, arrays replace. The file and its folder must belong to you or\n\
     root and be writable by nobody else: the file says which commands run.\n"
        .to_owned()
}
