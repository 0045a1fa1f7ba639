//! Configuration: the only place that reads the environment.

/// The value of an environment variable of the gateway, where it is set and is text.
pub fn env_var(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
