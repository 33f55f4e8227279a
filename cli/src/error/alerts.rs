//! What is told when rules cannot be derived or tested, or a Prometheus or an Alertmanager could not be asked.

use alerts::live::silence::SilenceError;
use alerts::programs::ProgramError;
use alerts::render::RenderError;
use alerts::routing::RoutingError;
use alerts::test::TestError;
use endpoint::EndpointError;

use crate::error::Failure;
use crate::exit::Exit;

impl From<RenderError> for Failure {
    fn from(error: RenderError) -> Self {
        let told = |code| Self::usage(code, "no rules can be derived from opsctl.toml").because(&error);
        match &error {
            RenderError::NeverFires { service, .. } => told("never_fires").help(format!(
                "an `availability` nearer to 100% in `objectives` of `[service.{service}]` leaves a budget that can burn"
            )),
            RenderError::NoBudget { service, .. } => {
                told("no_budget").help(format!("`objectives` of `[service.{service}]` in opsctl.toml"))
            }
            RenderError::NoBucket { service, .. } => told("no_bucket").help(format!(
                "`objectives = {{ latency_p95 = \"…\" }}` of `[service.{service}]` in opsctl.toml takes one of the bounds"
            )),
            RenderError::Query { service, .. } => {
                told("bad_query").help(format!("`sli` of `[service.{service}]` in opsctl.toml"))
            }
            RenderError::Address { .. } => told("bad_address").help("`dashboards` and `runbooks` of `[env.NAME]`"),
            RenderError::Name { .. } | RenderError::Twice { .. } => told("bad_name"),
        }
    }
}

impl From<ProgramError> for Failure {
    fn from(error: ProgramError) -> Self {
        let told = |code| Self::usage(code, "tests need a program that is not there").because(&error);
        match &error {
            ProgramError::Missing(program) => told("program_missing").help(format!(
                "install it, or say where it is with `--{} PATH`",
                program.name()
            )),
            ProgramError::Configured { .. } => told("program_missing"),
        }
    }
}

impl From<TestError> for Failure {
    fn from(error: TestError) -> Self {
        let told = |exit, code| Self::new(exit, code, "the tests could not be run").because(&error);
        match &error {
            TestError::Unreadable { .. } | TestError::TooLarge { .. } | TestError::Wrong { .. } => {
                told(Exit::Usage, "unreadable")
            }
            TestError::Scratch(_) => told(Exit::Failed, "io"),
            TestError::Promtool { .. } => {
                told(Exit::Failed, "promtool").help("`--promtool PATH` says which one is run")
            }
        }
    }
}

impl From<RoutingError> for Failure {
    fn from(error: RoutingError) -> Self {
        let told = |exit, code| Self::new(exit, code, "the tests of routes could not be run").because(&error);
        match &error {
            RoutingError::Unreadable { .. } | RoutingError::Wrong { .. } => told(Exit::Usage, "unreadable"),
            RoutingError::Scratch(_) => told(Exit::Failed, "io"),
            RoutingError::Program { .. } => {
                told(Exit::Failed, "alertmanager").help("`--alertmanager PATH` says which one is run")
            }
            RoutingError::Refused { .. } => told(Exit::Usage, "refused_by_alertmanager"),
            RoutingError::Silent { .. } | RoutingError::Asked(_) => told(Exit::Unreachable, "unreachable"),
            RoutingError::Undecided { .. } => told(Exit::Inconclusive, "undecided"),
        }
    }
}

impl From<EndpointError> for Failure {
    fn from(error: EndpointError) -> Self {
        let told = |exit, code| {
            let failure = Self::new(exit, code, error.to_string());
            failure.maybe_because(std::error::Error::source(&error))
        };
        match &error {
            EndpointError::Address(_) => told(Exit::Usage, "bad_address"),
            EndpointError::Client { .. } => {
                told(Exit::Usage, "client").help("is the `ca_file` beside its `url` in opsctl.toml a certificate?")
            }
            EndpointError::Unreachable { .. } | EndpointError::TimedOut { .. } => {
                told(Exit::Unreachable, "unreachable")
                    .help("`prometheus` and `alertmanager` of `[env.NAME]` in opsctl.toml say where they are")
            }
            EndpointError::Forbidden { .. } => told(Exit::Usage, "forbidden")
                .help("`token`, or `user` and `password`, beside its `url` in opsctl.toml"),
            EndpointError::Redirected { .. } => told(Exit::Usage, "redirected"),
            EndpointError::Refused { .. } => told(Exit::Failed, "refused_by_server"),
            EndpointError::TooLarge { .. } | EndpointError::Foreign { .. } => told(Exit::Failed, "bad_answer"),
        }
    }
}

impl From<SilenceError> for Failure {
    fn from(error: SilenceError) -> Self {
        let told = |code| Self::usage(code, error.to_string());
        match &error {
            SilenceError::Everything => told("too_wide"),
            SilenceError::Pattern(_) | SilenceError::Label => told("bad_matcher")
                .help("a matcher is for example service=orders, severity!=page or pod=~\"orders-.*\""),
            SilenceError::Duration | SilenceError::Forever => told("bad_duration").help("for example `--for 2h`"),
            SilenceError::Unexplained => told("unexplained").help("`--comment \"…\"` says why"),
            SilenceError::Unknown(_) => told("unknown_silence").help("opsctl alert silence list"),
        }
    }
}
