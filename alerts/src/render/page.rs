//! What a runbook page says of each alert: what it means, how it is measured, what to type first. One row an alert; an
//! alert without a row cannot be made.

use manifest::landscape::Board;

/// What is known of an alert of that name, whomever it is about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Page {
    /// Name of the alert.
    pub alert: &'static str,
    /// What it means for those who use the service.
    pub means: &'static str,
    /// How it is measured, and when it is silent.
    pub measured: &'static str,
    /// First commands and what each of them tells; `SERVICE` and `DATASTORE` stand for the alert's labels.
    pub commands: &'static [(&'static str, &'static str)],
    /// The board to look at.
    pub board: Board,
}

const HEALTH: (&str, &str) = (
    "opsctl health check SERVICE",
    "which check fails on which instance, and since when",
);
const LOGS: (&str, &str) = ("opsctl logs SERVICE --since 15m", "what it said when it began");
const POLICIES: (&str, &str) = (
    "opsctl policy show SERVICE",
    "which dependency is behind a breaker that is open, and what retries cost",
);
const SHIPPED: (&str, &str) = (
    "opsctl deploy status SERVICE",
    "whether a version was shipped shortly before; `opsctl deploy rollback SERVICE` takes it back",
);
const RUNS: (&str, &str) = ("opsctl run list", "whether a drill or a restore is what you see");
const RECOVERY: (&str, &str) = (
    "opsctl recovery status DATASTORE",
    "what would be lost now, and what of the promises is broken",
);
const FOLLOW: (&str, &str) = (
    "opsctl backup DATASTORE --follow",
    "receives from here on, and says what stands in its way; exit 8 where somebody else does already",
);

const BURN: &str = "The share of bad requests over a long and a short window, as sums of rates, so that a request weighs the \
same by night and at noon: 2% of the budget of 30 days within 1 h (and still in the last 5 min), 5% within 6 h (30 min) page; \
10% within 1 d (2 h) or 3 d (6 h) make a ticket. The label `window` says which one fired. It is silent while there are fewer \
than five bad requests in the long window, and while there are none at all to count: `SliAbsent` and `HealthEndpointDown` \
watch over that.";

/// Every alert, by name.
pub const PAGES: [Page; 21] = [
    Page {
        alert: "AvailabilityBudgetBurn",
        means: "Requests fail so often that the promise about availability will be broken before its 30 days are over.",
        measured: BURN,
        commands: &[SHIPPED, HEALTH, POLICIES, LOGS, RUNS],
        board: Board::Objectives,
    },
    Page {
        alert: "BackupTooOld",
        means: "If the datastore were lost now, more would be gone than was promised, or its backups have stopped.",
        measured: "The age of the last whole snapshot, as `opsctl recovery status` tells it, against the objective `rpo`; where \
there is none, or changes are shipped between snapshots, against the longest gap of the schedule and half of it more. The age \
is counted by Prometheus, so that it grows also when nobody asks for the status any more. A store that never had a backup \
counts as endlessly old.",
        commands: &[
            RECOVERY,
            (
                "opsctl schedule list",
                "whether the backup is due by itself, and how its last run ended",
            ),
            (
                "opsctl backup DATASTORE",
                "a backup now: it ends the alert, or says what stands in its way",
            ),
        ],
        board: Board::Backups,
    },
    Page {
        alert: "CanaryStuck",
        means: "A new version has had a part of the traffic for long, and nobody promoted it or took it back. Two versions at a \
time are a state to pass through.",
        measured: "Locally the share of traffic that the proxy grants a version, on Kubernetes whether pods of the canary's \
Deployment are scraped: at nine of ten looks since the time that is allowed.",
        commands: &[
            ("opsctl deploy status SERVICE", "what the judge waits for"),
            ("opsctl deploy promote SERVICE", "all traffic to the new version"),
            ("opsctl deploy abort SERVICE", "all traffic back"),
            ("opsctl recover", "undoes what a run left whose judge is gone"),
        ],
        board: Board::Canary,
    },
    Page {
        alert: "CircuitBreakerOpen",
        means: "Calls to a dependency are refused at once since too many of them failed. What the service does without it is \
what its users see.",
        measured: "Per policy, the worst of all instances: open or forced open at any scrape of the last two minutes, or opened \
again and again within a quarter of an hour, which a scrape in between would miss.",
        commands: &[
            POLICIES,
            ("opsctl health check", "whether the dependency itself is well"),
            LOGS,
            (
                "opsctl policy reset SERVICE",
                "closes it, once the dependency answers again and nobody wants to wait",
            ),
        ],
        board: Board::Policies,
    },
    Page {
        alert: "DeadLetterBacklog",
        means: "Events were given up and wait for a person. What they should have caused has not happened.",
        measured: "The number of dead letters in the table. Every instance tells the same number, so the largest is taken and \
not the sum.",
        commands: &[LOGS, HEALTH, ("opsctl status", "whether their receiver runs")],
        board: Board::Sagas,
    },
    Page {
        alert: "HealthEndpointDown",
        means: "No instance of the service says that it can take requests. It is down for everybody.",
        measured: "How many instances are scraped and say `ready` or `degraded` on their health endpoint; for services without \
that, how many are scraped. None at all counts as none: it fires also when the targets are gone.",
        commands: &[
            ("opsctl status", "what runs, and what was restarted how often"),
            HEALTH,
            LOGS,
            SHIPPED,
            RUNS,
        ],
        board: Board::Requests,
    },
    Page {
        alert: "HighDBConnectionUsage",
        means: "Nearly all connections to a database are in use. Soon callers wait, then they time out.",
        measured: "Of a service's own pools: connections in use over ten minutes against the pool's size, per instance, the \
fullest one. Of a PostgreSQL server: its backends against `max_connections` without those that are kept for superusers.",
        commands: &[
            ("opsctl health check SERVICE", "how long the database takes to answer"),
            ("opsctl policy show SERVICE", "whether retries make it worse"),
            LOGS,
        ],
        board: Board::Postgres,
    },
    Page {
        alert: "HighErrorRate",
        means: "A large share of all requests fails by the service's own fault.",
        measured: "Failed requests against all of the last five minutes, summed over instances, routes and protocols: HTTP 5xx, \
and the gRPC codes that are a server's failure. What a caller did wrong does not count. It needs at least five failures.",
        commands: &[SHIPPED, HEALTH, POLICIES, LOGS, RUNS],
        board: Board::Requests,
    },
    Page {
        alert: "LatencyBudgetBurn",
        means: "Requests are slow so often that the promise about latency will be broken before its 30 days are over.",
        measured: BURN,
        commands: &[SHIPPED, POLICIES, HEALTH, LOGS, RUNS],
        board: Board::Objectives,
    },
    Page {
        alert: "LogLost",
        means: "The server removed log of the datastore before it was received. No restore leads over that place, and until a \
new base backup is taken, none reaches what was committed after it.",
        measured: "A gap in the archived log that no base backup was taken after, or a replication slot that the server has given \
up on, as `opsctl recovery status` tells it. Whoever follows takes the new base backup by itself, which ends the alert.",
        commands: &[
            RECOVERY,
            FOLLOW,
            (
                "opsctl backup DATASTORE",
                "a base backup now, where somebody follows and it does not come",
            ),
        ],
        board: Board::Backups,
    },
    Page {
        alert: "LogNotReceived",
        means: "Nobody receives the log of the datastore: what is committed now is on the server alone, whose disk fills with \
what it keeps.",
        measured: "Whether somebody reads from the replication slot, as `opsctl recovery status` tells it. It is silent where \
there is no slot, and while the server cannot be asked; `BackupTooOld` watches over what would be lost all the same.",
        commands: &[RECOVERY, FOLLOW],
        board: Board::Backups,
    },
    Page {
        alert: "MetricsAbsent",
        means: "Another alert is blind: what it is derived from is not there, although the service is scraped. Nothing is known \
to be broken, and nobody would notice if it were.",
        measured: "Targets are up, and the series that the label `metric` names is missing; of a datastore, that nobody has \
written its status.",
        commands: &[
            ("opsctl status", "whether an old version runs that does not export it"),
            (
                "opsctl recovery status DATASTORE --metrics",
                "writes what is missing about backups",
            ),
        ],
        board: Board::Requests,
    },
    Page {
        alert: "OutboxBacklog",
        means: "Events are stored but do not get through to their receivers. Others act on what is no longer true.",
        measured: "The age of the oldest event in the outbox, not their number: many young ones are traffic. Every instance \
tells the same age, so the largest is taken.",
        commands: &[
            (
                "opsctl policy show SERVICE",
                "whether a breaker keeps the relay from its receiver",
            ),
            ("opsctl health check", "whether the receiver is well"),
            LOGS,
        ],
        board: Board::Sagas,
    },
    Page {
        alert: "ReplicationSlotFilling",
        means: "Log of the datastore is written faster than it is received. When the rest of what the server may keep is used \
up, too, log is lost for ever.",
        measured: "What the server may still keep for the replication slot against what it keeps already and may keep together \
(`max_slot_wal_keep_size`): less than a quarter is left. Silent where there is no limit.",
        commands: &[
            RECOVERY,
            FOLLOW,
            (
                "opsctl repository check",
                "whether the store of the repository answers, and how fast",
            ),
        ],
        board: Board::Backups,
    },
    Page {
        alert: "RestoreProofTooOld",
        means: "Nobody has shown for longer than was promised that this datastore's backups can be restored.",
        measured: "The age of the last restore drill that proved a snapshot, against the objective `prove_every`. A store that \
was never proved counts as endlessly old.",
        commands: &[
            RECOVERY,
            ("opsctl drill restore DATASTORE", "proves it now, into a scratch place"),
            (
                "opsctl schedule list",
                "whether the drill is due by itself, and how its last run ended",
            ),
        ],
        board: Board::Backups,
    },
    Page {
        alert: "SagaStuck",
        means: "Orders were begun and do not come to an end: money may be taken and nothing delivered.",
        measured: "By the label `cause`. `idle`: orders were open all the time and none reached a final status. `retrying`: a \
step is tried again and again and never comes to anything; the label `step` says which one.",
        commands: &[
            ("opsctl policy show SERVICE", "which dependency is not reached"),
            LOGS,
            HEALTH,
        ],
        board: Board::Sagas,
    },
    Page {
        alert: "SliAbsent",
        means: "What the objectives are counted from is not there, although the service is scraped and was asked within the last \
hours. Its objectives are watched over by nobody.",
        measured: "Targets are up, no series of requests exists, and in the last six hours there were enough requests that half \
an hour without any would be no chance. A service that was only restarted and is not asked stays silent.",
        commands: &[
            ("opsctl status", "which version runs: it may count under another name"),
            HEALTH,
            SHIPPED,
        ],
        board: Board::Requests,
    },
    Page {
        alert: "SlowRequests",
        means: "More requests than the objective allows take longer than it allows.",
        measured: "Requests beyond the bucket that ends at the objective against all of the last ten minutes: counted, not \
estimated from a quantile. Streams are left out. It needs at least five slow requests.",
        commands: &[SHIPPED, POLICIES, HEALTH, LOGS],
        board: Board::Requests,
    },
    Page {
        alert: "TrafficStopped",
        means: "Nobody asks the service any more, and at this hour they always do. What stands before it may be broken, where \
its own counters cannot see it.",
        measured: "No request for half an hour, and enough of them within the same hour yesterday and a week ago.",
        commands: &[
            (
                "opsctl status",
                "whether the way to it is open: proxy, routes, instances",
            ),
            HEALTH,
            RUNS,
        ],
        board: Board::Requests,
    },
    Page {
        alert: "UnprovedRestore",
        means: "The last restore drill tried and did not prove its snapshot: the backup may be worth nothing.",
        measured: "The verdict of the last restore drill, as `opsctl recovery status` tells it.",
        commands: &[
            RECOVERY,
            ("opsctl recovery report DATASTORE", "what the drill found, step by step"),
            ("opsctl drill restore DATASTORE", "tries again with the newest snapshot"),
        ],
        board: Board::Backups,
    },
    Page {
        alert: "Watchdog",
        means: "Nothing is wrong. It always fires, so that whoever no longer hears it knows that alerts do not come through.",
        measured: "Always.",
        commands: &[("opsctl alert check --live", "where on its way an alert is lost")],
        board: Board::Objectives,
    },
];

impl Page {
    /// The page of an alert.
    pub fn of(alert: &str) -> Option<&'static Self> {
        PAGES.iter().find(|page| page.alert == alert)
    }
}
