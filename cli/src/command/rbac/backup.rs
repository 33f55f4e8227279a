//! What a writer and a pruner of backups must be allowed in a bucket of S3. The policies are the crate `backups`'; this
//! file knows for which bucket.

use backups::store::s3::{pruner_policy, writer_policy};
use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Args, What};
use crate::config::Config;
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::exit::Exit;
use crate::repository;

/// Who works in a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Role {
    /// Backs up, restores and checks; deletes nothing but its locks
    Writer,
    /// May delete: forget, prune, key remove
    Pruner,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    r#type: &'static str,
    repository: &'a str,
    bucket: &'a str,
    prefix: &'a str,
    policies: Value,
}

/// Prints the policies.
pub(super) fn run(args: &Args, context: &Context, config: &Config) -> Outcome {
    if args.what != [What::Backup] || !args.cluster_role_for.is_empty() {
        return Err(Failure::usage(
            "usage",
            "`--for backup` prints policies of S3, which stand in no document with objects of a cluster",
        )
        .help("ask for them by themselves"));
    }
    let declared = repository::declared(config, args.repository.as_deref())?;
    let Some(bucket) = &declared.bucket else {
        return Err(Failure::usage(
            "no_bucket",
            format!(
                "repository `{}` is at {}, where files have owners",
                declared.name, declared.store
            ),
        )
        .cause("policies are for repositories in S3")
        .help("choose one with `--repository`, or an environment that has one with `-e`"));
    };
    let policy = |role| match role {
        Role::Writer => writer_policy(&bucket.name, &bucket.prefix),
        Role::Pruner => pruner_policy(&bucket.name, &bucket.prefix),
    };
    let policies = match args.role {
        Some(Role::Writer) => json!({ "writer": policy(Role::Writer) }),
        Some(Role::Pruner) => json!({ "pruner": policy(Role::Pruner) }),
        None => json!({ "writer": policy(Role::Writer), "pruner": policy(Role::Pruner) }),
    };
    let document = Document {
        schema: "opsctl.rbac/v1",
        r#type: "bucket_policies",
        repository: &declared.name,
        bucket: &bucket.name,
        prefix: &bucket.prefix,
        policies,
    };
    // For one role it is the policy and nothing else, as the tools of S3 read it.
    let printed = args.role.map_or_else(|| document.policies.clone(), policy);
    context.out.answer(&document, |_| format!("{printed:#}\n"))?;
    Ok(Exit::Done)
}
