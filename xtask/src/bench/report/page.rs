//! One page: a heading, and sections with plots.

use std::fmt::Write;

/// The page in the making.
pub(super) struct Page {
    machine: String,
    sections: Vec<Section>,
}

/// A part with a heading, a line of explanation, and plots.
pub(super) struct Section {
    title: String,
    words: String,
    plots: Vec<String>,
    missing: Option<&'static str>,
}

impl Section {
    pub(super) fn new(title: &str, words: &str) -> Self {
        Self { title: title.to_owned(), words: words.to_owned(), plots: Vec::new(), missing: None }
    }

    /// Nothing was measured; this command does.
    pub(super) fn missing(self, command: &'static str) -> Self {
        Self { missing: Some(command), ..self }
    }

    /// With these plots, each an SVG, or, if there are none, with the command that measures what they need.
    pub(super) fn plots_or(self, plots: Vec<String>, command: &'static str) -> Self {
        if plots.is_empty() { self.missing(command) } else { Self { plots, ..self } }
    }
}

/// Colours are variables, and the plots use them: lines of four kinds, what is worse, frames and text.
const STYLE: &str = "
:root { --ink: #1b1f24; --paper: #ffffff; --faint: #d0d7de; --one: #0969da; --two: #bc4c00; --three: #1a7f37;
  --four: #8250df; color-scheme: light dark; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --paper: #0d1117; --faint: #30363d; --one: #58a6ff; --two: #f0883e; --three: #56d364;
    --four: #bc8cff; }
}
body { margin: 0 auto; max-width: 72rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 0; } p { max-width: 44rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1.5rem; align-items: start; }
svg { display: block; width: 100%; max-width: 35rem; height: auto; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
svg .title { font-weight: 600; font-size: 13px; } svg .name { font-size: 11px; } svg .mark { text-anchor: middle; }
.axis { stroke: var(--faint); stroke-width: 1; } .line { stroke: var(--ink); stroke-width: 1.5; }
.bar { fill: var(--one); } .worse { fill: var(--two); }
polyline { fill: none; stroke-width: 2; } .dashed { stroke-dasharray: 6 4; } circle { fill: var(--paper); stroke-width: 1.5; }
circle.dashed { stroke-dasharray: none; }
.c0 { stroke: var(--one); } .c1 { stroke: var(--two); } .c2 { stroke: var(--three); } .c3 { stroke: var(--four); }
code { background: var(--faint); padding: 0 0.3em; border-radius: 0.2em; overflow-wrap: anywhere; }
";

impl Page {
    pub(super) fn new(machine: &str) -> Self {
        Self { machine: machine.to_owned(), sections: Vec::new() }
    }

    pub(super) fn add(&mut self, section: Section) {
        self.sections.push(section);
    }

    pub(super) fn html(&self) -> String {
        let mut html = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>Quiesce: what operations cost</title>\n<style>{STYLE}</style>\n\
             <h1>What operations cost</h1>\n<p>{}</p>\n",
            escape(&self.machine)
        );
        for section in &self.sections {
            let _ = writeln!(html, "<h2>{}</h2>\n<p>{}</p>", escape(&section.title), escape(&section.words));
            if let Some(command) = section.missing {
                let _ = writeln!(html, "<p>Not measured yet: <code>{command}</code></p>");
            }
            if !section.plots.is_empty() {
                let _ = write!(html, "<div class=\"plots\">\n{}</div>\n", section.plots.concat());
            }
        }
        html + "</html>\n"
    }
}

/// `text` as HTML and SVG have it.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
