//! The page in a browser: on a phone and on a desk, light and dark, every plot is drawn and can be read.

use std::fs;
use std::process::Command;

use serde_json::Value;

use super::tests::{PLOTS, whole_page};
use crate::{ui, workspace};

/// What Debian calls it, and what others do.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Looks at the page as it is laid out, and leaves what it finds as text.
const JUDGE: &str = "
<script>
addEventListener('load', () => {
  const plots = [...document.querySelectorAll('svg')];
  const inside = (a, b) => a.left >= b.left - 1 && a.right <= b.right + 1 && a.top >= b.top - 1 && a.bottom <= b.bottom + 1;
  const visible = e => { const r = e.getBoundingClientRect(); return r.width > 0 || r.height > 0; };
  const paper = getComputedStyle(document.body).backgroundColor;
  const ink = e => { const s = getComputedStyle(e); return e.matches('polyline,line') ? s.stroke : s.fill; };
  const texts = plots.flatMap(p => [...p.querySelectorAll('text')]);
  const overlap = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 2 && b.top < a.bottom - 2;
  const found = {
    width: innerWidth,
    plots: plots.length,
    drawn: plots.filter(p => [...p.querySelectorAll('rect,polyline')].filter(visible).length > 0).length,
    wide: document.documentElement.scrollWidth - innerWidth,
    outside: texts.filter(t => !inside(t.getBoundingClientRect(), t.ownerSVGElement.getBoundingClientRect())).map(t => t.textContent),
    overlapping: plots.flatMap(p => { const all = [...p.querySelectorAll('text')].map(t => [t.getBoundingClientRect(), t.textContent]);
      return all.flatMap(([a, s], i) => all.slice(i + 1).filter(([b]) => overlap(a, b)).map(([, t]) => s + ' / ' + t)); }),
    small: Math.min(...texts.map(t => parseFloat(getComputedStyle(t).fontSize) * t.getScreenCTM().a)),
    unseen: plots.flatMap(p => [...p.querySelectorAll('text,rect,polyline')]).filter(e => ink(e) === paper).length,
    dark: matchMedia('(prefers-color-scheme: dark)').matches,
    paper,
  };
  const pre = document.createElement('pre');
  pre.id = 'found';
  pre.textContent = JSON.stringify(found);
  (window.frameElement ? parent.document : document).body.append(pre);
});
</script>";

/// What the judge found with a window of that width.
fn look(browser: &std::path::Path, width: u32, dark: bool) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let page = whole_page().replace("</html>", &format!("{JUDGE}</html>"));
    // Windows are wider than a phone; a frame is as wide as it is told to be.
    let escaped = page.replace('&', "&amp;").replace('"', "&quot;");
    let frame = format!(
        "<!DOCTYPE html><meta charset=\"utf-8\"><body><iframe scrolling=\"no\" width=\"{width}\" height=\"800\" srcdoc=\"{escaped}\"></iframe>"
    );
    let file = folder.path().join("frame.html");
    fs::write(&file, frame).unwrap();
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1600,1000", "--dump-dom"])
        .args(["--timeout=20000", "--virtual-time-budget=5000"])
        .arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)))
        .arg(format!("--user-data-dir={}", folder.path().display()))
        .arg(format!("file://{}", file.display()))
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout);
    let found = dom.split("<pre id=\"found\">").nth(1).and_then(|rest| rest.split("</pre>").next());
    let found = found.unwrap_or_else(|| panic!("{}\n{dom}", String::from_utf8_lossy(&output.stderr)));
    let found = found.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    serde_json::from_str(&found).unwrap()
}

#[test]
fn a_browser_draws_all_plots_on_a_phone_and_on_a_desk() {
    let Some(browser) = BROWSERS.iter().find_map(|name| workspace::find_program(name)) else {
        ui::warn("skipped: no browser draws the report; `apt-get install chromium` brings one");
        return;
    };
    for (width, smallest) in [(375, 9.0), (1280, 11.0)] {
        for dark in [false, true] {
            let found = look(&browser, width, dark);
            assert_eq!(found["width"], width, "{found}");
            assert_eq!(found["dark"], dark, "{found}");
            assert_eq!(found["plots"], PLOTS, "{found}");
            assert_eq!(found["drawn"], PLOTS, "{found}");
            // Nobody has to move it sideways, and no label is cut off or lies on another.
            assert!(found["wide"].as_i64().unwrap() <= 0, "{found}");
            assert_eq!(found["outside"].as_array().map(Vec::len), Some(0), "{found}");
            assert_eq!(found["overlapping"].as_array().map(Vec::len), Some(0), "{found}");
            assert_eq!(found["unseen"], 0, "{found}");
            assert!(found["small"].as_f64().unwrap() >= smallest, "{found}");
            let paper = if dark { "rgb(13, 17, 23)" } else { "rgb(255, 255, 255)" };
            assert_eq!(found["paper"], paper, "{found}");
        }
    }
}
