//! `opsctl rbac`: the least rights on a cluster, as objects to apply, or in a bucket, as policies. It asks nobody and
//! changes nothing.

mod backup;
pub(crate) mod yaml;

use std::collections::{BTreeMap, BTreeSet};

use clap::ValueEnum;
use opsctl_platform::kube::access::{Access, Command, needed};
use serde::Serialize;
use serde_json::{Value, json};

use crate::config;
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::exit::Exit;
use crate::platform;

/// Print the least rights for a cluster or a bucket
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// What is to be allowed
    #[arg(
        long = "for",
        value_name = "WHAT",
        value_enum,
        value_delimiter = ',',
        default_value = "status"
    )]
    what: Vec<What>,

    /// What is to be allowed in the whole cluster
    #[arg(long, value_name = "WHAT", value_enum, value_delimiter = ',')]
    cluster_role_for: Vec<Wide>,

    /// Only these Secrets may be read (policy)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    secret: Vec<String>,

    /// Who may besides the service account
    #[arg(long, value_name = "NAME")]
    user: Vec<String>,

    /// As --user, a group
    #[arg(long, value_name = "NAME")]
    group: Vec<String>,

    /// Print the policy of this role alone (backup)
    #[arg(long, value_name = "ROLE", value_enum)]
    role: Option<backup::Role>,

    /// The repository in S3 that is meant (backup)
    #[arg(long, value_name = "NAME")]
    repository: Option<String>,
}

/// What is done in the namespaces of services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// status, run list and show
    Status,
    /// logs
    Logs,
    /// health check and watch
    Health,
    /// policy show, force and reset
    Policy,
    /// drill, but for node-drain; recover
    Drill,
    /// deploy; recover
    Canary,
    /// restore --replace of a PostgreSQL; recover
    Restore,
    /// backup, and repository prune: policies of S3
    Backup,
}

/// What is done to what belongs to no namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Wide {
    /// drill node-drain
    NodeDrain,
}

impl What {
    fn commands(self) -> Vec<Command> {
        match self {
            Self::Status => vec![Command::Status],
            Self::Logs => vec![Command::Status, Command::Logs],
            Self::Health => vec![Command::Status, Command::Health],
            Self::Policy => vec![Command::Status, Command::Policy],
            Self::Drill => {
                let here = Command::DRILLS.iter().filter(|drill| **drill != Command::NodeDrain);
                here.copied().chain([Command::Status, Command::Job]).collect()
            }
            Self::Canary => vec![Command::Status, Command::Canary, Command::Job],
            Self::Restore => vec![Command::Status, Command::Restore],
            // Nothing on a cluster.
            Self::Backup => Vec::new(),
        }
    }
}

fn help() -> String {
    format!(
        "Examples:\n  # What the judge of a canary needs, and whoever starts one\n  \
         opsctl rbac -e production --for drill,canary --group oncall | kubectl apply -f -\n\n  \
         # Nodes belong to no namespace\n  opsctl rbac --for drill --cluster-role-for node-drain\n\n  \
         # Who backs up to S3 needs no right to delete; who prunes does\n  \
         opsctl rbac -e production --for backup --role writer > writer.json\n\n\
         It prints a Role in every namespace that services of the environment are in, a ServiceAccount and a RoleBinding.\n\
         With one verb less a drill or a canary does not start, and names the verb.\n\n{}",
        Exit::section(&[Exit::Usage])
    )
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    r#type: &'static str,
    environment: &'a str,
    objects: Vec<Value>,
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let config = config::load(context)?;
    if args.what.contains(&What::Backup) {
        return backup::run(args, context, &config);
    }
    if args.role.is_some() || args.repository.is_some() {
        return Err(Failure::usage(
            "usage",
            "`--role` and `--repository` belong to `--for backup`",
        ));
    }
    let clusters = platform::described(context, &config)?;
    if clusters.is_empty() {
        return Err(Failure::usage(
            "no_clusters",
            format!(
                "environment `{}` is on this machine, where nobody needs a role",
                config.environment.name
            ),
        )
        .help("choose an environment on Kubernetes with `-e`"));
    }
    let mut commands: Vec<Command> = args.what.iter().flat_map(|what| what.commands()).collect();
    if args.cluster_role_for.contains(&Wide::NodeDrain) {
        commands.extend([Command::Status, Command::NodeDrain]);
    }
    let providers: Vec<_> = clusters.iter().flat_map(|(_, settings)| settings.providers()).collect();
    let rows = needed(&commands, &providers);
    let accounts: BTreeSet<&str> = clusters
        .iter()
        .map(|(cluster, _)| cluster.service_account.as_str())
        .collect();
    let namespaces: BTreeSet<&str> = clusters
        .iter()
        .flat_map(|(_, settings)| settings.namespaces())
        .collect();
    let mut objects = Vec::new();
    for account in accounts {
        objects.extend(of_account(account, &namespaces, &rows, args));
    }
    let document = Document {
        schema: "opsctl.rbac/v1",
        r#type: "rbac",
        environment: &config.environment.name,
        objects,
    };
    context.out.answer(&document, |_| {
        let texts: Vec<String> = document.objects.iter().map(yaml::document).collect();
        texts.join("---\n")
    })?;
    Ok(Exit::Done)
}

fn of_account(account: &str, namespaces: &BTreeSet<&str>, rows: &[Access], args: &Args) -> Vec<Value> {
    const GROUP: &str = "rbac.authorization.k8s.io";
    const VERSION: &str = "rbac.authorization.k8s.io/v1";
    let labels = json!({ "app.kubernetes.io/managed-by": "opsctl" });
    let named = |kind: &str, namespace: Option<&str>| {
        let mut metadata = json!({ "name": account, "labels": labels });
        if let Some(namespace) = namespace {
            metadata["namespace"] = namespace.into();
        }
        json!({ "apiVersion": VERSION, "kind": kind, "metadata": metadata })
    };
    let people = || {
        let of_kind = |kind: &'static str, names: &[String]| {
            let subjects: Vec<Value> = names
                .iter()
                .map(|name| json!({ "apiGroup": GROUP, "kind": kind, "name": name }))
                .collect();
            subjects
        };
        [of_kind("User", &args.user), of_kind("Group", &args.group)].concat()
    };
    let subject = |namespace: &str| json!({ "kind": "ServiceAccount", "name": account, "namespace": namespace });
    let mut objects = Vec::new();
    for namespace in namespaces {
        let mut made = named("ServiceAccount", Some(namespace));
        made["apiVersion"] = "v1".into();
        let mut role = named("Role", Some(namespace));
        role["rules"] = rules(rows.iter().filter(|row| !row.cluster), &args.secret).into();
        let mut binding = named("RoleBinding", Some(namespace));
        binding["roleRef"] = json!({ "apiGroup": GROUP, "kind": "Role", "name": account });
        binding["subjects"] = [vec![subject(namespace)], people()].concat().into();
        objects.extend([made, role, binding]);
    }
    if !args.cluster_role_for.is_empty() {
        let mut role = named("ClusterRole", None);
        role["rules"] = rules(rows.iter().filter(|row| row.cluster), &[]).into();
        let mut binding = named("ClusterRoleBinding", None);
        binding["roleRef"] = json!({ "apiGroup": GROUP, "kind": "ClusterRole", "name": account });
        let accounts = namespaces.iter().map(|namespace| subject(namespace)).collect();
        binding["subjects"] = [accounts, people()].concat().into();
        objects.extend([role, binding]);
    }
    objects
}

/// One rule for resources of a group that need the same verbs.
fn rules<'a>(rows: impl Iterator<Item = &'a Access>, secrets: &[String]) -> Vec<Value> {
    let mut verbs: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for row in rows {
        verbs.entry((row.group, row.resource)).or_default().extend(row.verbs);
    }
    let mut grouped: BTreeMap<(&str, BTreeSet<&str>, bool), Vec<&str>> = BTreeMap::new();
    for ((group, resource), verbs) in verbs {
        let by_name = resource == "secrets" && !secrets.is_empty();
        grouped.entry((group, verbs, by_name)).or_default().push(resource);
    }
    let rule = |((group, verbs, by_name), resources): ((&str, BTreeSet<&str>, bool), Vec<&str>)| {
        let mut rule = json!({ "apiGroups": [group], "resources": resources, "verbs": verbs });
        if by_name {
            rule["resourceNames"] = secrets.into();
        }
        rule
    };
    grouped.into_iter().map(rule).collect()
}
