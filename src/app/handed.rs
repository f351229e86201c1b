//! Listening sockets that a service manager opened for this process (systemd's socket activation). They outlive it: who
//! connects while it is restarted waits for its successor instead of being refused.

use std::{
    env,
    net::{SocketAddr, TcpListener},
};

use anyhow::{Context, Result};
use listenfd::ListenFd;

use super::serving::Listeners;
use crate::settings::{
    Settings,
    place::SettingsError,
    plan::{Plan, Roles},
};

/// Sockets that were handed over, each with its name, if it was given one.
#[derive(Debug, Default)]
pub struct Handed(Vec<(String, TcpListener)>);

impl Handed {
    /// Those that the environment tells of: `LISTEN_FDS`, `LISTEN_FDNAMES`. To be called once, before there are threads:
    /// the variables are taken out of the environment.
    ///
    /// # Errors
    ///
    /// Something else than TCP sockets was handed over.
    pub fn from_env() -> Result<Self> {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':').map(ToOwned::to_owned);
        let mut sockets = ListenFd::from_env();
        let mut handed = Vec::new();
        for number in 0..sockets.len() {
            let listener = sockets.take_tcp_listener(number);
            let what = || format!("socket {} of those that were handed over (LISTEN_FDS)", number + 1);
            let listener = listener.with_context(what)?.with_context(what)?;
            listener.set_nonblocking(true).with_context(what)?;
            handed.push((names.next().unwrap_or_default(), listener));
        }
        Ok(Self(handed))
    }

    /// Give those that are named as a role of this process to that role; its address is then the socket's, whatever the
    /// settings say.
    pub(super) fn by_name(&mut self, roles: Roles, settings: &mut Settings) -> Result<Listeners> {
        let mut found = Listeners::default();
        let mut others = Vec::new();
        // then nobody listens at an address of one role alone
        let one_port = settings.is_one_port(roles)
            || (roles == Roles::Standalone && self.0.iter().any(|(name, _)| name == "standalone"));
        for (name, listener) in self.0.drain(..) {
            let admin = if roles.master() { &mut settings.master.admin } else { &mut settings.slave.admin };
            let (place, setting) = match name.as_str() {
                "standalone" if one_port => (&mut found.both, &mut settings.standalone.listen),
                "master" if roles.master() && !one_port => (&mut found.master, &mut settings.master.listen),
                "slave" if roles.slave() && !one_port => (&mut found.slave, &mut settings.slave.listen),
                "admin" => (&mut found.admin, admin),
                _ => {
                    others.push((name, listener));
                    continue;
                }
            };
            let address = listener.local_addr()?;
            if place.is_some() {
                return Err(twice(&name, address).into());
            }
            *setting = address.to_string();
            *place = Some(listener);
        }
        self.0 = others;
        Ok(found)
    }

    /// Give the others to whoever of `plan` listens at their address.
    ///
    /// # Errors
    ///
    /// Nobody does: whoever connected there would wait for ever.
    pub(super) fn by_address(self, plan: &Plan, found: &mut Listeners) -> Result<()> {
        for (name, listener) in self.0 {
            let address = listener.local_addr()?;
            let of_role = |address: Option<SocketAddr>| address.filter(|_| !plan.one_port);
            let places = [
                ("standalone", plan.master.filter(|_| plan.one_port), &mut found.both),
                ("master", of_role(plan.master), &mut found.master),
                ("slave", of_role(plan.slave), &mut found.slave),
                ("admin", plan.admin, &mut found.admin),
            ];
            let place = places.into_iter().find(|(_, wanted, _)| *wanted == Some(address));
            match place {
                Some((_, _, place)) if place.is_none() => *place = Some(listener),
                Some((role, ..)) => return Err(twice(role, address).into()),
                None => {
                    let name = if name.is_empty() { String::new() } else { format!(" (named {name:?})") };
                    let message =
                        format!("the socket at {address}{name} was handed over, and this process has no use for it");
                    let hint = "name it master, slave, standalone or admin (FileDescriptorName= in its .socket unit), or \
                                let one of the settings *.listen be its address";
                    return Err(SettingsError::new(message).hint(hint).into());
                }
            }
        }
        Ok(())
    }
}

fn twice(role: &str, address: SocketAddr) -> SettingsError {
    let message = format!("the socket at {address} was handed over, but {role} has one already");
    SettingsError::new(message).hint("one ListenStream= for each role")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::load::Loaded;

    fn socket() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// Who got which, of sockets with these names; `set` knows their addresses.
    fn given(
        roles: Roles,
        names: &[&str],
        set: impl FnOnce(&mut Settings, &[SocketAddr]),
    ) -> Result<([Option<SocketAddr>; 3], Vec<SocketAddr>)> {
        let (sockets, addresses): (Vec<_>, Vec<_>) = names.iter().map(|_| socket()).unzip();
        let mut handed = Handed(names.iter().map(|&name| name.to_owned()).zip(sockets).collect());
        let mut loaded = Loaded::from(Settings::default());
        set(&mut loaded.settings, &addresses);
        let mut found = handed.by_name(roles, &mut loaded.settings)?;
        let plan = Plan::new(&loaded, roles)?;
        handed.by_address(&plan, &mut found)?;
        let at = |listener: &Option<TcpListener>| listener.as_ref().map(|listener| listener.local_addr().unwrap());
        let both = at(&found.both);
        assert!(!plan.one_port || (found.master.is_none() && found.slave.is_none()), "one serves both");
        let got = [at(&found.master).or(both), at(&found.slave).or(both), at(&found.admin)];
        for (wanted, got) in [plan.master, plan.slave, plan.admin].into_iter().zip(got) {
            assert!(got.is_none() || wanted == got, "what is judged is the address that is served");
        }
        Ok((got, addresses))
    }

    #[test]
    fn sockets_are_told_apart_by_name_and_by_address() {
        let (got, sockets) = given(Roles::Standalone, &["admin", "slave", "master"], |_, _| {}).unwrap();
        assert_eq!(got, [2, 1, 0].map(|number: usize| Some(sockets[number])));
        let (got, sockets) = given(Roles::Standalone, &["wellhead.socket", "admin"], |settings, sockets| {
            settings.slave.listen = sockets[0].to_string();
            settings.master.admin = String::new();
        })
        .unwrap();
        assert_eq!(got, [None, Some(sockets[0]), Some(sockets[1])], "one that is named is opened, set or not");
        let (got, sockets) = given(Roles::Slave, &["admin", ""], |settings, sockets| {
            settings.slave.listen = sockets[1].to_string();
        })
        .unwrap();
        assert_eq!(got, [None, Some(sockets[1]), Some(sockets[0])]);
        assert_eq!(given(Roles::Standalone, &[], |_, _| {}).unwrap().0, [None; 3]);
    }

    #[test]
    fn one_socket_may_be_for_both_roles() {
        let (got, sockets) = given(Roles::Standalone, &["admin", "standalone"], |_, _| {}).unwrap();
        assert_eq!(got, [1, 1, 0].map(|number: usize| Some(sockets[number])), "named, whatever the settings say");
        let (got, sockets) = given(Roles::Standalone, &["wellhead.socket"], |settings, sockets| {
            settings.standalone.listen = sockets[0].to_string();
        })
        .unwrap();
        assert_eq!(got, [Some(sockets[0]), Some(sockets[0]), None]);
        let one_port =
            |settings: &mut Settings, _: &[SocketAddr]| settings.standalone.listen = "127.0.0.1:1".to_owned();
        let error =
            given(Roles::Standalone, &["master"], one_port).expect_err("it would be served by nobody").to_string();
        assert!(error.contains("was handed over"), "{error}");
        assert!(given(Roles::Slave, &["slave"], one_port).is_ok(), "the setting is standalone's");
    }

    #[test]
    fn a_socket_that_nobody_serves_is_an_error() {
        for (roles, names) in [
            (Roles::Master, &["slave"][..]),
            (Roles::Slave, &["unknown"]),
            (Roles::Slave, &["slave", "slave"]),
            (Roles::Slave, &["standalone"]),
            (Roles::Standalone, &["standalone", "slave"]),
            (Roles::Standalone, &["standalone", "standalone"]),
        ] {
            let error = given(roles, names, |_, _| {}).expect_err("refused").to_string();
            assert!(error.contains("was handed over"), "{error}");
        }
    }

    #[test]
    fn what_is_not_allowed_at_an_address_is_not_allowed_on_a_socket_there() {
        let everywhere = TcpListener::bind("0.0.0.0:0").unwrap();
        let mut handed = Handed(vec![("master".to_owned(), everywhere)]);
        let mut loaded = Loaded::from(Settings::default());
        handed.by_name(Roles::Master, &mut loaded.settings).unwrap();
        assert!(Plan::new(&loaded, Roles::Master).is_err(), "development mode is for this machine only");
    }
}
