//! Whether clients that come by the VIP will take the certificates of the backends behind it.

use std::net::{IpAddr, SocketAddr};

use crate::finding::Finding;

/// How soon the end of a certificate is told.
pub(in crate::doctor) const SOON_DAYS: u64 = 14;

/// A backend's, as a service's checks ask for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::doctor) struct Seen {
    pub(in crate::doctor) service: String,
    pub(in crate::doctor) backend: SocketAddr,
    /// What it showed, or why it showed nothing.
    pub(in crate::doctor) shown: Result<Shown, String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::doctor) struct Shown {
    /// `server_name` of the service's checks: clients come by this name.
    pub(in crate::doctor) server_name: Option<String>,
    /// Why the checks do not take it.
    pub(in crate::doctor) refused: Option<String>,
    /// Of the service's virtual addresses, those that it is not for.
    pub(in crate::doctor) uncovered: Vec<IpAddr>,
    /// Whether it is still valid [`SOON_DAYS`] from now; none where no authority vouches for it.
    pub(in crate::doctor) lasts: Option<bool>,
}

pub(in crate::doctor) fn judge(seen: &Seen) -> Vec<Finding> {
    const NAME: &str = "certificate";
    let Seen { service, backend, shown } = seen;
    let subject = || format!("certificate of {backend} ({service})");
    let shown = match shown {
        Ok(shown) => shown,
        Err(why) => {
            return vec![Finding::not_looked_at(
                NAME,
                subject(),
                why,
                Some("lbctl backends -o wide"),
            )];
        }
    };
    let mut findings = Vec::new();
    if let Some(why) = &shown.refused {
        findings.push(Finding::bad(
            "certificate_refused",
            subject(),
            format!("the checks do not take it: {why}"),
            format!(
                "openssl s_client -connect {backend} -showcerts </dev/null shows it: ca_file, fingerprint or \
                 server_name in [service.health] of `{service}` must fit"
            ),
        ));
    }
    // Clients that come by a name do not ask for the address.
    if shown.server_name.is_none() && !shown.uncovered.is_empty() {
        let vips: Vec<String> = shown.uncovered.iter().map(IpAddr::to_string).collect();
        findings.push(Finding::bad(
            "certificate_vip",
            subject(),
            format!("it is not for {}: clients that come by the VIP refuse it", vips.join(", ")),
            format!(
                "make it anew with {} as subjectAltName; with kubeadm: rm /etc/kubernetes/pki/apiserver.crt \
                 /etc/kubernetes/pki/apiserver.key && kubeadm init phase certs apiserver \
                 --apiserver-cert-extra-sans {}; server_name in [service.health] where clients come by a name",
                vips.iter().map(|vip| format!("IP:{vip}")).collect::<Vec<_>>().join(","),
                vips.join(",")
            ),
        ));
    }
    if shown.lasts == Some(false) && shown.refused.is_none() {
        findings.push(Finding::doubtful(
            "certificate_ends",
            subject(),
            format!("it expires within {SOON_DAYS} days"),
            "renew it (with kubeadm: kubeadm certs renew apiserver)",
        ));
    }
    if findings.is_empty() {
        let found = match &shown.server_name {
            Some(name) => format!("for {name}, by which clients come"),
            None => "for the VIP".to_owned(),
        };
        findings.push(Finding::good(NAME, subject(), found));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity;

    fn shown() -> Shown {
        Shown { server_name: None, refused: None, uncovered: Vec::new(), lasts: Some(true) }
    }

    fn judged(shown: Result<Shown, String>) -> Vec<(&'static str, Severity)> {
        let backend = "192.0.2.2:6443".parse().unwrap();
        let seen = Seen { service: "api".to_owned(), backend, shown };
        judge(&seen).into_iter().map(|finding| (finding.name, finding.severity)).collect()
    }

    #[test]
    fn a_certificate_is_for_the_vip_or_for_a_name() {
        assert_eq!(judged(Ok(shown())), [("certificate", Severity::Good)]);
        let without = Shown { uncovered: vec![[192, 0, 2, 1].into()], ..shown() };
        assert_eq!(judged(Ok(without.clone())), [("certificate_vip", Severity::Bad)]);
        let named = Shown { server_name: Some("api.example.org".to_owned()), ..without };
        assert_eq!(judged(Ok(named)), [("certificate", Severity::Good)]);
    }

    #[test]
    fn one_that_ends_soon_or_is_refused_is_told() {
        let ends = Shown { lasts: Some(false), ..shown() };
        assert_eq!(judged(Ok(ends.clone())), [("certificate_ends", Severity::Doubtful)]);
        let refused = Shown { refused: Some("it has expired".to_owned()), ..ends };
        assert_eq!(judged(Ok(refused)), [("certificate_refused", Severity::Bad)]);
        assert_eq!(judged(Err("no answer".to_owned())), [("certificate", Severity::NotLookedAt)]);
    }
}
