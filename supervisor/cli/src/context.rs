//! Contexts of the `nats` command line: files that say where a server is and how to log in. Only the one that is named is used, never the one
//! that was selected for the `nats` command.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use common::api::ApiError;
use common::failure;
use serde_json::Value;

use crate::args::Global;

/// What a context says that a connection needs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Context {
    /// The servers, with the login in it, if there is one.
    url: String,
    creds: Option<PathBuf>,
    ca: Option<PathBuf>,
}

/// How one logs in that is not supported, unless `--creds` is given.
const LOGINS: [&str; 4] = ["nkey", "nsc", "user_jwt", "user_seed"];
/// What changes the connection itself, and is not supported.
const OTHERS: [&str; 7] = [
    "cert",
    "key",
    "socks_proxy",
    "inbox_prefix",
    "jetstream_domain",
    "jetstream_api_prefix",
    "windows_cert_store",
];

/// What is wrong with a context: cause, and what to try.
type Wrong = (String, String);

impl Global {
    /// Takes the server and the login from the context, if one is named. What is given beside it counts: `--creds` instead of its login,
    /// `--ca` instead of its CA. An empty variable counts as not set.
    ///
    /// # Errors
    /// When a server is given, too, or the context cannot be read or says what is not supported.
    pub fn with_context(mut self) -> Result<Self, ApiError> {
        let Some(name) = self.context.take().filter(|name| !name.is_empty()) else {
            return Ok(self);
        };
        let what = format!("cannot use the nats context {:?}", crate::output::shown(&name));
        let fails = |code, (cause, try_): Wrong| failure::error(code, what.clone(), cause, try_);
        if self.url().is_some() {
            let cause = "a server is given as well: --nats or NATS_URL";
            let try_ = "one of --context (NATS_CONTEXT) and --nats (NATS_URL)";
            return Err(fails(failure::USAGE, (cause.to_owned(), try_.to_owned())));
        }
        let home = std::env::home_dir();
        let Some(folder) = folder(std::env::var_os("XDG_CONFIG_HOME"), home.as_deref()) else {
            let cause = "neither XDG_CONFIG_HOME nor HOME is set".to_owned();
            return Err(fails(failure::USAGE, (cause, "set HOME, or --nats URL".to_owned())));
        };
        let file = file(&folder, &name).map_err(|wrong| fails(failure::USAGE, wrong))?;
        let text = std::fs::read_to_string(&file).map_err(|error| {
            if error.kind() == ErrorKind::NotFound {
                return fails(failure::NOT_FOUND, missing(&folder, &file));
            }
            let what = format!("{what}: cannot read {}", file.display());
            failure::file(what, &error, "`nats context ls`")
        })?;
        let context = parse(&text, home.as_deref(), self.creds().is_some());
        let Context { url, creds, ca } = context.map_err(|(cause, try_)| {
            fails(failure::USAGE, (format!("{}: {cause}", file.display()), try_))
        })?;
        self.nats = Some(url);
        self.creds = self.creds().or(creds);
        self.ca = self.ca.filter(|path| !path.as_os_str().is_empty()).or(ca);
        Ok(self)
    }
}

/// Where the `nats` command line has its contexts.
fn folder(config: Option<OsString>, home: Option<&Path>) -> Option<PathBuf> {
    let config = config.filter(|config| !config.is_empty()).map(PathBuf::from);
    let config = config.or_else(|| Some(home?.join(".config")))?;
    Some(config.join("nats").join("context"))
}

/// The file of a context. A name is no path.
fn file(folder: &Path, name: &str) -> Result<PathBuf, Wrong> {
    if name.contains(['/', '\\']) || name.contains("..") {
        let cause = format!("it is no name: contexts are files in {}", folder.display());
        return Err((cause, "`nats context ls`".to_owned()));
    }
    Ok(folder.join(format!("{name}.json")))
}

/// Why there is no such file.
fn missing(folder: &Path, file: &Path) -> Wrong {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let contexts = paths.filter(|path| path.extension().is_some_and(|it| it == "json"));
    let names = contexts.filter_map(|path| path.file_stem()?.to_str().map(str::to_owned));
    let mut names: Vec<_> = names.collect();
    names.sort();
    let try_ = match names.as_slice() {
        [] => "`nats context add NAME --server URL`".to_owned(),
        names => format!("one of {}", names.join(", ")),
    };
    (format!("{} does not exist", file.display()), try_)
}

/// Reads a context. `has_login`: there is a login beside it.
fn parse(text: &str, home: Option<&Path>, has_login: bool) -> Result<Context, Wrong> {
    let invalid = |why: &str| (why.to_owned(), "`nats context edit NAME`".to_owned());
    let fields: Value =
        serde_json::from_str(text).map_err(|error| invalid(&format!("it is not JSON: {error}")))?;
    let Value::Object(fields) = fields else { return Err(invalid("it is no JSON object")) };
    let field = |name: &str| match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) if text.starts_with("op://") => {
            let cause = format!("its {name} is in 1Password, which is not supported");
            Err((cause, "put the value into the context, or --creds FILE".to_owned()))
        }
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(invalid(&format!("its {name} is no text"))),
    };
    let path = |name: &str| Ok::<_, Wrong>(field(name)?.map(|path| below_home(path, home)));
    for name in OTHERS {
        if field(name)?.is_some() {
            let try_ = "--nats URL, with --creds FILE and --ca FILE, or a context without it";
            return Err((format!("it has {name}, which is not supported"), try_.to_owned()));
        }
    }
    if fields.get("tls_first") == Some(&Value::Bool(true)) {
        let try_ = "a listener of the server without `handshake_first`";
        return Err(("it has tls_first, which is not supported".to_owned(), try_.to_owned()));
    }
    let Some(url) = field("url")? else { return Err(invalid("it names no server (`url`)")) };
    let ca = path("ca")?;
    if has_login {
        return Ok(Context { url: url.to_owned(), creds: None, ca });
    }
    for name in LOGINS {
        if field(name)?.is_some() {
            let try_ = "a context with creds, user and password, or token; or --creds FILE";
            return Err((
                format!("it logs in with {name}, which is not supported"),
                try_.to_owned(),
            ));
        }
    }
    let login = match (field("user")?, field("password")?, field("token")?) {
        (Some(user), Some(password), _) => Some(format!("{}:{}", escaped(user), escaped(password))),
        (Some(_), None, _) => return Err(invalid("it has a user and no password")),
        (None, Some(_), _) => return Err(invalid("it has a password and no user")),
        (None, None, token) => token.map(escaped),
    };
    let url = match login {
        // One in the address counts, as for the `nats` command.
        Some(login) if !url.contains('@') => with_login(url, &login),
        _ => url.to_owned(),
    };
    Ok(Context { url, creds: path("creds")?, ca })
}

/// An address with a login: that of the first server is for all.
fn with_login(url: &str, login: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{login}@{rest}"),
        None => format!("{login}@{url}"),
    }
}

/// As an address has it: whatever is not a letter or a digit may mean something there.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() {
            true => out.push(char::from(byte)),
            // Writing to a string cannot fail.
            false => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

/// `~` is the home folder, as for the `nats` command.
fn below_home(path: &str, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Context, Wrong> {
        parse(text, Some(Path::new("/home/ana")), false)
    }

    fn url(text: &str) -> String {
        read(text).expect("fine").url
    }

    #[test]
    fn every_kind_of_login_is_read() {
        assert_eq!(url(r#"{"url":"nats://h:1","description":"x","creds":""}"#), "nats://h:1");
        let user = r#"{"url":"nats://h:1,nats://i:1","user":"u@x","password":"p:s/%"}"#;
        assert_eq!(url(user), "nats://u%40x:p%3As%2F%25@h:1,nats://i:1");
        assert_eq!(url(r#"{"url":"h","token":"t,1"}"#), "t%2C1@h");
        assert_eq!(url(r#"{"url":"tls://a:b@h","token":"t"}"#), "tls://a:b@h");
        let files = r#"{"url":"tls://h","creds":"~/n/a.creds","ca":"/etc/ca.pem","nkey":null}"#;
        let context = read(files).expect("fine");
        assert_eq!(context.creds, Some("/home/ana/n/a.creds".into()));
        assert_eq!(context.ca, Some("/etc/ca.pem".into()));
    }

    #[test]
    fn what_is_not_supported_is_refused_where_it_is_needed() {
        for name in LOGINS.iter().chain(&OTHERS) {
            let text = format!(r#"{{"url":"nats://h","{name}":"x"}}"#);
            let (cause, try_) = read(&text).expect_err("refused");
            assert!(cause.contains(&format!("{name}, which is not supported")), "{cause}");
            assert!(!try_.is_empty());
            let with_login = parse(&text, None, true);
            assert_eq!(with_login.is_ok(), LOGINS.contains(name), "{name} beside --creds");
            assert!(read(&text.replace("\"x\"", "\"\"")).is_ok(), "{name} is not set");
        }
        for (text, words) in [
            ("", "it is not JSON"),
            ("nats://h", "it is not JSON"),
            ("[]", "it is no JSON object"),
            ("{}", "it names no server"),
            (r#"{"url":""}"#, "it names no server"),
            (r#"{"url":1}"#, "its url is no text"),
            (r#"{"url":"h","user":"u"}"#, "a user and no password"),
            (r#"{"url":"h","password":"p"}"#, "a password and no user"),
            (r#"{"url":"h","token":"op://vault/x"}"#, "its token is in 1Password"),
            (r#"{"url":"h","tls_first":true}"#, "tls_first"),
        ] {
            let (cause, _) = read(text).expect_err("refused");
            assert!(cause.contains(words), "{text}: {cause}");
        }
    }

    #[test]
    fn a_context_is_a_file_of_its_name_and_no_path() {
        let home = Path::new("/home/ana");
        let by = |config: Option<&str>, home| folder(config.map(OsString::from), home);
        assert_eq!(by(None, Some(home)), Some("/home/ana/.config/nats/context".into()));
        assert_eq!(by(Some(""), Some(home)), Some("/home/ana/.config/nats/context".into()));
        assert_eq!(by(Some("/c"), None), Some("/c/nats/context".into()));
        assert_eq!(by(None, None), None);
        let folder = Path::new("/c");
        assert_eq!(file(folder, "prod.eu"), Ok("/c/prod.eu.json".into()));
        for name in ["../x", "a/b", "/etc/passwd", "..", "a\\b"] {
            assert!(file(folder, name).is_err(), "{name}");
        }
    }
}
