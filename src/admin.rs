//! The admin listener: metrics, with what the process itself costs. Health is answered by the HTTP service.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    sync::Arc,
};

use bytes::Bytes;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge, info::Info},
    registry::{Registry, Unit},
};
use wellhead_master::{Master, keys::admit_holder};
use wellhead_proto::{
    dialect::contract::ApiReply,
    http_api::{Head, HttpApi, NotAdmitted, text as plain},
    push_key::Right,
    refusal::Refusal,
    tenants::TenantDirectory,
};

use crate::{exposition::Format, health::VERSION};

/// What the admin listener serves besides health.
#[derive(Clone)]
pub struct Admin {
    registry: Arc<Registry>,
    guard: MetricsGuard,
}

/// Who judges those that ask for metrics.
#[derive(Clone)]
pub enum MetricsGuard {
    /// Nobody: only this machine reaches the listener.
    Nobody,
    /// The master, by its push keys.
    Master(Master),
    /// The same keys, where there is no master.
    PushKeys(Arc<TenantDirectory>),
}

impl Admin {
    /// Shows what `registry` counts, to those that `guard` lets in.
    #[must_use]
    pub fn new(registry: Registry, guard: MetricsGuard) -> Self {
        Self { registry: Arc::new(registry), guard }
    }
}

impl MetricsGuard {
    fn admit(&self, head: Head<'_>) -> Result<(), Refusal> {
        match self {
            Self::Nobody => Ok(()),
            Self::Master(master) => master.authorise(head.headers, Right::Query),
            Self::PushKeys(tenants) => admit_holder(&tenants.load(), head.headers, Right::Query).map(drop),
        }
    }
}

impl HttpApi for Admin {
    type Admitted = ();

    fn admit(&self, head: Head<'_>) -> Result<(), NotAdmitted> {
        match (head.path, head.method) {
            ("/metrics", "GET" | "HEAD") => self.guard.admit(head).map_err(|why| {
                let reply = self.refuse(&(), &why);
                match reply.status {
                    401 => reply.with_header("WWW-Authenticate", "Bearer").into(),
                    _ => reply.into(),
                }
            }),
            ("/metrics", _) => Err(plain(405, "Method Not Allowed\n").with_header("Allow", "GET, HEAD").into()),
            _ => Err(NotAdmitted::NotMine),
        }
    }

    fn refuse(&self, (): &(), why: &Refusal) -> ApiReply {
        ApiReply::new(why.status(), "text/plain; charset=utf-8", format!("{why}\n"))
    }

    async fn serve(&self, (): (), head: Head<'_>, _: Bytes) -> ApiReply {
        let format = Format::preferred(head.headers.header("accept"));
        match format.write(&self.registry) {
            Ok(metrics) => ApiReply::new(200, format.content_type(), metrics).with_header("Vary", "Accept"),
            Err(_) => plain(500, "cannot write the metrics\n"),
        }
    }

    fn body_limit(&self, (): &()) -> usize {
        0
    }
}

/// Count the process itself into `registry`, under the names that Prometheus has for that; what else is registered there
/// has the prefix of the part that it gives.
pub fn register(registry: &mut Registry) -> &mut Registry {
    registry.register_collector(Box::new(Process));
    let ours = registry.sub_registry_with_prefix("wellhead");
    ours.register("build", "What runs here", Info::new(vec![("version", VERSION)]));
    ours
}

/// What the process costs, read from the system whenever somebody asks.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, value: Option<f64>| {
            let Some(value) = value else { return Ok(()) };
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, unit, gauge.metric_type())?)
        };
        let bytes = Some(&Unit::Bytes);
        gauge("process_resident_memory", "Memory that is resident", bytes, resident_bytes().ok().flatten())?;
        gauge("process_open_fds", "File descriptors in use", None, open_fds().ok())?;
        let max_fds = rlimit::getrlimit(rlimit::Resource::NOFILE).ok().map(|(soft, _)| soft as f64);
        gauge("process_max_fds", "File descriptors that may be in use", None, max_fds)?;
        let times = times().ok().flatten();
        let start = times.map(|(_, start)| start);
        gauge("process_start_time", "When it started, since 1970", Some(&Unit::Seconds), start)?;
        if let Some((cpu, _)) = times {
            let cpu = ConstCounter::new(cpu);
            let help = "Processor time, user and system";
            cpu.encode(encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), cpu.metric_type())?)?;
        }
        Ok(())
    }
}

fn resident_bytes() -> io::Result<Option<f64>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    Ok(kib.map(|kib: f64| kib * 1_024.0))
}

fn open_fds() -> io::Result<f64> {
    // the listing itself holds one
    Ok(fs::read_dir("/proc/self/fd")?.count().saturating_sub(1) as f64)
}

/// Processor time and start time, in seconds.
fn times() -> io::Result<Option<(f64, f64)>> {
    // USER_HZ: what the kernel shows to programs, 100 on every architecture that we run on
    const TICKS: f64 = 100.0;

    let stat = fs::read_to_string("/proc/self/stat")?;
    // the second field, the name in parentheses, may hold blanks; the third is the first behind it
    let Some((_, rest)) = stat.rsplit_once(')') else { return Ok(None) };
    let field = |number: usize| rest.split_ascii_whitespace().nth(number - 3).and_then(|text| text.parse::<f64>().ok());
    let mut boot = None;
    for line in BufReader::new(fs::File::open("/proc/stat")?).lines() {
        if let Some(time) = line?.strip_prefix("btime ") {
            boot = time.trim().parse::<f64>().ok();
        }
    }
    let (Some(user), Some(system), Some(start), Some(boot)) = (field(14), field(15), field(22), boot) else {
        return Ok(None);
    };
    Ok(Some(((user + system) / TICKS, boot + start / TICKS)))
}

#[cfg(test)]
mod tests {
    use wellhead_master::{Keyless, MasterSetup, keys::PushKey};
    use wellhead_proto::{
        dialect::contract::Headers, http_api::HttpVersion, ids::SocketIdSeal, tenants::Tenants, testkit::RecordingBus,
    };

    use super::*;

    struct BearerHeader(Option<&'static str>);

    impl Headers for BearerHeader {
        fn header(&self, name: &str) -> Option<&str> {
            self.0.filter(|_| name == "authorization")
        }
    }

    fn key(name: &str, rights: &str) -> PushKey {
        let hash = wellhead_master::keys::KeyHash::of(name);
        toml::from_str(&format!("name = \"{name}\"\nsha256 = \"{hash}\"\nrights = [{rights}]")).unwrap()
    }

    #[test]
    fn beyond_this_machine_metrics_are_for_holders_of_a_key_that_may_query() {
        let keys = vec![key("asks", "\"query\""), key("pushes", "\"push\"")];
        let tenants = Arc::new(TenantDirectory::new(Tenants::default().with_push_keys(keys)));
        let setup = MasterSetup {
            bus: Arc::new(RecordingBus::default()),
            tenants: tenants.clone(),
            dialects: wellhead_proto::dialect::all(&Default::default(), &SocketIdSeal::new(b"seal")),
            body_limit: 1,
            grants_limit: 1,
            keyless: Keyless::ThisMachine,
        };
        let mut registry = Registry::default();
        let master = Master::new(setup, &mut registry);
        let status = |guard: &MetricsGuard, key| {
            let head = Head {
                version: HttpVersion::Http11,
                method: "GET",
                path: "/metrics",
                query: "",
                headers: &BearerHeader(key),
            };
            let admin = Admin::new(Registry::default(), guard.clone());
            admin.admit(head).map_or_else(|no| no.into_reply(|| admin.not_found(head)).status, |()| 200)
        };
        assert_eq!(status(&MetricsGuard::Nobody, None), 200);
        for guard in [MetricsGuard::Master(master), MetricsGuard::PushKeys(tenants.clone())] {
            assert_eq!(status(&guard, None), 401);
            assert_eq!(status(&guard, Some("Bearer unknown")), 401);
            assert_eq!(status(&guard, Some("Bearer pushes")), 403);
            assert_eq!(status(&guard, Some("Bearer asks")), 200);
        }
        tenants.swap(Tenants::default());
        assert_eq!(status(&MetricsGuard::PushKeys(tenants), None), 401, "nobody has a key");
    }

    #[test]
    fn the_process_is_measured_in_base_units() {
        let mut registry = Registry::default();
        register(&mut registry);
        let metrics = Format::Prometheus.write(&registry).unwrap();
        let value = |name: &str| -> f64 {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {name} in\n{metrics}")).parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_cpu_seconds_total") >= 0.0);
        let started = value("process_start_time_seconds");
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        assert!((0.0..3_600.0).contains(&(now - started)), "{started} {now}");
        assert!(metrics.contains(&format!("wellhead_build_info{{version=\"{VERSION}\"}} 1")), "{metrics}");
    }
}
