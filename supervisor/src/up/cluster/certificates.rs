//! The cluster's certificates: a CA that its first member makes, and one certificate for each member.

use std::io;
use std::time::SystemTime;

use common::Timestamp;
use common::api::ApiError;
use common::failure;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use runtime::home::Home;

use super::Member;

/// Hosts' clocks differ, and may be wrong by years.
const FROM_YEAR: i32 = 2020;
/// As long as a fleet may live; a member's certificate is made anew whenever its server is started.
const YEARS: i32 = 20;

fn failed(error: impl std::fmt::Display) -> ApiError {
    failure::error(failure::FAILED, "cannot make the cluster's certificates", error, "")
}

/// A new CA: its certificate and its key, in PEM.
pub(super) fn authority(cluster: &str) -> Result<(String, String), ApiError> {
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = of_authority(cluster)?.self_signed(&key).map_err(failed)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn of_authority(cluster: &str) -> Result<CertificateParams, ApiError> {
    let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
    params.distinguished_name.push(DnType::CommonName, format!("mozart cluster {cluster}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    limit(&mut params);
    Ok(params)
}

fn limit(params: &mut CertificateParams) {
    let now = Timestamp::from(SystemTime::now()).to_string();
    let year = now.get(..4).and_then(|year| year.parse().ok()).unwrap_or(FROM_YEAR);
    params.not_before = date_time_ymd(FROM_YEAR, 1, 1);
    params.not_after = date_time_ymd(year.max(FROM_YEAR) + YEARS, 1, 1);
}

/// Writes a member's certificate, its key, and the CA's certificate.
pub(super) fn write(member: &Member, home: &Home) -> Result<(), ApiError> {
    let issuer_key = KeyPair::from_pem(&member.shared.ca_key).map_err(failed)?;
    let issuer = Issuer::new(of_authority(&member.cluster)?, issuer_key);
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
    params.distinguished_name.push(DnType::CommonName, member.server.clone());
    params.subject_alt_names = vec![SanType::IpAddress(member.address.ip())];
    params.use_authority_key_identifier_extension = true;
    // Servers are each other's clients.
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    limit(&mut params);
    let certificate = params.signed_by(&key, &issuer).map_err(failed)?;
    let put = || -> io::Result<()> {
        home.put("nats/ca.pem", member.shared.ca.as_bytes())?;
        home.put("nats/server-key.pem", key.serialize_pem().as_bytes())?;
        home.put("nats/server.pem", certificate.pem().as_bytes())
    };
    put().map_err(|error| {
        let what = format!("cannot write certificates to {}", home.nats().display());
        failure::file(what, &error, "check the disk space and permissions there")
    })
}
