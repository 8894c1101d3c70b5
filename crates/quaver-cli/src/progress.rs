//! Progress bars on standard error; silent where that is no terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over `len` steps with a name in front.
pub(crate) fn bar(len: usize, name: &str) -> ProgressBar {
    let bar = ProgressBar::new(len as u64);
    // The template is a constant; were it wrong, the default style would serve.
    if let Ok(style) = ProgressStyle::with_template(
        "{prefix:>20} {wide_bar:.cyan/dim} {pos}/{len} {msg:<28} {eta}",
    ) {
        bar.set_style(style);
    }
    bar.set_prefix(name.to_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
