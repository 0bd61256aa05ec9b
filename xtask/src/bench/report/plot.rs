//! Plots as SVG text. Colours and fonts come from the page's style sheet, so that one drawing serves light and dark.

use std::fmt::Write;

use super::page::escape;

/// How wide a drawing is, in its own units; the page scales it.
///
/// A phone shows it a little smaller than it is, and two of them fit beside each other on a desk.
const WIDTH: f64 = 400.0;
/// How many colours the style sheet has for lines.
const COLOURS: usize = 4;

/// One bar.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) value: f64,
}

/// Bars that go both ways from a line end at so many times its value, and at its value divided by that.
const FARTHEST: f64 = 8.0;

/// How values become lengths.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    /// From nothing to the largest.
    Linear,
    /// Each step a factor; bars begin at `line`, if there is one, and go both ways.
    Log { line: Option<f64> },
}

/// One line of a plot.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) label: String,
    pub(super) points: Vec<(f64, f64)>,
    /// One of the style sheet's.
    pub(super) colour: usize,
    pub(super) dashed: bool,
}

fn open(height: f64, title: &str) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">\n", escape(title))
}

/// Bars to the right of their labels, one below the other.
pub(super) fn bars(title: &str, bars: &[Bar], scale: Scale) -> String {
    const ROW: f64 = 20.0;
    const TOP: f64 = 24.0;
    const LABELS: f64 = 196.0;
    const VALUES: f64 = 58.0;
    let height = TOP + ROW * bars.len() as f64 + 6.0;
    let mut svg = open(height, title);
    let _ = writeln!(svg, "<text class=\"title\" x=\"0\" y=\"14\">{}</text>", escape(title));
    let room = WIDTH - LABELS - VALUES;
    let base = scale.base(bars);
    let (least, most) = scale.range(bars, base);
    let place = |value: f64| {
        LABELS + room * ((scale.apply(value) - least) / (most - least).max(1e-9)).clamp(0.0, 1.0)
    };
    let zero = place(base);
    for (row, bar) in bars.iter().enumerate() {
        let y = TOP + ROW * row as f64;
        let end = place(bar.value);
        let (x, width) = (zero.min(end), (zero - end).abs().max(1.0));
        let worse = matches!(scale, Scale::Log { line: Some(line) } if bar.value > line * 1.005);
        let class = if worse { "bar worse" } else { "bar" };
        let middle = y + 14.0;
        let label = escape(&cut(&bar.label));
        let _ = writeln!(svg, "<text class=\"name\" x=\"0\" y=\"{middle:.1}\">{label}</text>");
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\"/>",
            y + 3.0,
            ROW - 6.0
        );
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{middle:.1}\">{}</text>",
            WIDTH - VALUES + 8.0,
            shown(bar.value)
        );
    }
    if let Scale::Log { line: Some(_) } = scale {
        let _ = writeln!(
            svg,
            "<line class=\"line\" x1=\"{zero:.1}\" y1=\"{TOP}\" x2=\"{zero:.1}\" y2=\"{height:.1}\"/>"
        );
    }
    svg + "</svg>\n"
}

/// A label as far as there is room for it. What is left out is in the middle, where names differ least.
fn cut(label: &str) -> String {
    const ROOM: usize = 33;
    let letters: Vec<char> = label.chars().collect();
    if letters.len() <= ROOM {
        return label.to_owned();
    }
    let (head, tail) = (&letters[..ROOM / 2 - 1], &letters[letters.len() - ROOM / 2..]);
    format!("{}\u{2026}{}", head.iter().collect::<String>(), tail.iter().collect::<String>())
}

impl Scale {
    fn apply(self, value: f64) -> f64 {
        match self {
            Scale::Linear => value,
            // Nothing has no logarithm; a thousandth is as good as nothing.
            Scale::Log { .. } => value.max(1e-3).ln(),
        }
    }

    /// Where bars begin, as a value.
    fn base(self, bars: &[Bar]) -> f64 {
        match self {
            Scale::Linear => 0.0,
            Scale::Log { line: Some(line) } => line,
            Scale::Log { line: None } => {
                bars.iter().map(|bar| bar.value).fold(f64::MAX, f64::min).max(1e-3) / 2.0
            }
        }
    }

    fn range(self, bars: &[Bar], base: f64) -> (f64, f64) {
        if let Scale::Log { line: Some(line) } = self {
            // One that is a thousand times better must not make all others look alike.
            return (self.apply(line / FARTHEST), self.apply(line * FARTHEST));
        }
        let values = bars.iter().map(|bar| bar.value).chain([base]).map(|value| self.apply(value));
        values.fold((f64::MAX, f64::MIN), |(least, most), value| (least.min(value), most.max(value)))
    }
}

/// Lines over a number of CPUs, timers or the like, each step across a factor, with their labels below.
///
/// `up` goes from nothing to the largest value, or by factors of ten.
pub(super) fn lines(title: &str, across: &str, up: &str, steps: Up, lines: &[Line]) -> String {
    const LEFT: f64 = 44.0;
    const RIGHT: f64 = WIDTH - 20.0;
    const TOP: f64 = 50.0;
    const BOTTOM: f64 = 250.0;
    const LEGEND: f64 = 18.0;
    let points = || lines.iter().flat_map(|line| &line.points);
    let values: Vec<f64> = points().map(|point| point.1).collect();
    let (ticks, share) = steps.ticks(&values);
    let mut marks: Vec<f64> = points().map(|point| point.0).collect();
    marks.sort_by(f64::total_cmp);
    marks.dedup();
    let (first, last) = (marks.first().copied().unwrap_or(1.0), marks.last().copied().unwrap_or(1.0));
    let x = |value: f64| {
        let share = (value / first).ln() / (last / first).ln().max(1e-9);
        LEFT + (RIGHT - LEFT) * share.clamp(0.0, 1.0)
    };
    let y = |value: f64| BOTTOM - (BOTTOM - TOP) * share(value);
    let mut svg = open(BOTTOM + 54.0 + LEGEND * lines.len() as f64, title);
    let _ = writeln!(svg, "<text class=\"title\" x=\"0\" y=\"14\">{}</text>", escape(title));
    let _ = writeln!(svg, "<text x=\"0\" y=\"34\">{}</text>", escape(up));
    for value in ticks {
        let at = y(value);
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{RIGHT}\" y2=\"{at:.1}\"/>"
        );
        let _ = writeln!(svg, "<text x=\"0\" y=\"{:.1}\">{}</text>", at + 4.0, round(value));
    }
    for mark in marks {
        let _ = writeln!(
            svg,
            "<text class=\"mark\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x(mark),
            BOTTOM + 18.0,
            round(mark)
        );
    }
    let _ = writeln!(
        svg,
        "<text class=\"mark\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        (LEFT + RIGHT) / 2.0,
        BOTTOM + 36.0,
        escape(across)
    );
    for (number, Line { label, points, colour, dashed }) in lines.iter().enumerate() {
        let class = format!("c{}{}", colour % COLOURS, if *dashed { " dashed" } else { "" });
        let path: Vec<String> =
            points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
        let _ = writeln!(svg, "<polyline class=\"{class}\" points=\"{}\"/>", path.join(" "));
        for point in points {
            let (x, y) = (x(point.0), y(point.1));
            let _ = writeln!(svg, "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\"/>");
        }
        let at = BOTTOM + 54.0 + LEGEND * number as f64;
        let _ = writeln!(svg, "<polyline class=\"{class}\" points=\"0,{at:.1} 30,{at:.1}\"/>");
        let _ = writeln!(svg, "<text x=\"38\" y=\"{:.1}\">{}</text>", at + 4.0, escape(label));
    }
    svg + "</svg>\n"
}

/// How heights grow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Up {
    /// From nothing, in equal steps.
    Evenly,
    /// By factors of ten.
    ByTens,
}

impl Up {
    /// The values with a line across, and what share of the height a value is at.
    fn ticks(self, values: &[f64]) -> (Vec<f64>, Box<dyn Fn(f64) -> f64>) {
        let most = values.iter().copied().fold(0.0, f64::max);
        match self {
            Up::Evenly => {
                let most = most.max(1e-9);
                let ticks = (0..=4).map(|step| most * f64::from(step) / 4.0).collect();
                (ticks, Box::new(move |value| (value / most).clamp(0.0, 1.0)))
            }
            Up::ByTens => {
                // Nothing has no logarithm, and a tenth is as little as anything here.
                let log = |value: f64| value.max(0.1).log10();
                let least = values.iter().copied().fold(f64::MAX, f64::min).min(most);
                let (from, to) = (log(least).floor(), log(most).ceil());
                let to = if to > from { to } else { from + 1.0 };
                let ticks = (from as i32..=to as i32).map(|power| 10f64.powi(power)).collect();
                (ticks, Box::new(move |value| ((log(value) - from) / (to - from)).clamp(0.0, 1.0)))
            }
        }
    }
}

/// A value at an axis, in few characters.
fn round(value: f64) -> String {
    match value {
        1e6.. => format!("{}M", value / 1e6),
        1e4.. => format!("{}k", (value / 1e2).round() / 10.0),
        100.0.. => format!("{value:.0}"),
        _ => format!("{}", (value * 100.0).round() / 100.0),
    }
}

/// As many digits as there is room for.
fn shown(value: f64) -> String {
    match value {
        1e6.. => format!("{:.1}M", value / 1e6),
        1e4.. => format!("{:.1}k", value / 1e3),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1e-9..0.01 => format!("{value:.5}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::slice;

    use super::*;

    fn attribute(element: &str, name: &str) -> Option<f64> {
        let rest = element.split(&format!(" {name}=\"")).nth(1)?;
        rest.split('"').next()?.parse().ok()
    }

    /// Every mark of a drawing is inside of its frame.
    pub(in super::super) fn assert_marks_are_inside(svg: &str) {
        let frame = svg.split("viewBox=\"0 0 ").nth(1).unwrap().split('"').next().unwrap();
        let (width, height) = frame.split_once(' ').unwrap();
        let (width, height): (f64, f64) = (width.parse().unwrap(), height.parse().unwrap());
        let inside = |x: f64, y: f64| (-0.1..=width + 0.1).contains(&x) && (-0.1..=height + 0.1).contains(&y);
        for element in
            svg.split('<').filter(|element| element.starts_with("rect") || element.starts_with("text"))
        {
            let (x, y) = (attribute(element, "x").unwrap(), attribute(element, "y").unwrap());
            let (w, h) =
                (attribute(element, "width").unwrap_or(0.0), attribute(element, "height").unwrap_or(0.0));
            assert!(inside(x, y) && inside(x + w, y + h), "{element} in {frame}");
        }
        for points in svg.split("points=\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            for point in points.split_whitespace() {
                let (x, y) = point.split_once(',').unwrap();
                assert!(inside(x.parse().unwrap(), y.parse().unwrap()), "{point} in {frame}");
            }
        }
    }

    fn bar(value: f64) -> Bar {
        Bar { label: format!("{value}"), value }
    }

    fn rectangles(svg: &str) -> Vec<(f64, f64)> {
        let rectangles = svg.split('<').filter(|element| element.starts_with("rect"));
        rectangles.map(|r| (attribute(r, "x").unwrap(), attribute(r, "width").unwrap())).collect()
    }

    #[test]
    fn ratios_go_both_ways_from_the_line() {
        let svg = bars("ratios", &[bar(0.5), bar(1.0), bar(2.0)], Scale::Log { line: Some(1.0) });
        let found = rectangles(&svg);
        // Half and double are as far from the line as each other.
        assert!((found[0].1 - found[2].1).abs() < 0.2, "{found:?}");
        assert!((found[0].0 + found[0].1 - found[2].0).abs() < 0.2, "{found:?}");
        assert!(svg.matches("worse").count() == 1);
        assert_marks_are_inside(&svg);
    }

    #[test]
    fn lengths_are_in_proportion() {
        let found = rectangles(&bars("lengths", &[bar(1.0), bar(4.0)], Scale::Linear));
        assert!((found[1].1 / found[0].1 - 4.0).abs() < 0.1, "{found:?}");
    }

    #[test]
    fn a_factor_is_the_same_height_everywhere() {
        let points = vec![(1e3, 10.0), (1e4, 100.0), (1e6, 1000.0)];
        let line = Line { label: "x".into(), points, colour: 0, dashed: false };
        let svg = lines("cost", "timers", "ns", Up::ByTens, &[line]);
        let at: Vec<(f64, f64)> = svg
            .split('<')
            .filter(|element| element.starts_with("circle"))
            .map(|circle| (attribute(circle, "cx").unwrap(), attribute(circle, "cy").unwrap()))
            .collect();
        let (a, b, c) = (at[0], at[1], at[2]);
        assert!((a.1 - b.1 - (b.1 - c.1)).abs() < 0.2 && a.1 > b.1, "{at:?}");
        assert!((2.0 * (b.0 - a.0) - (c.0 - b.0)).abs() < 0.2 && a.0 < b.0, "{at:?}");
        assert!(svg.contains(">1000<") && svg.contains(">1M<") && svg.contains(">10k<"), "{svg}");
    }

    #[test]
    fn long_labels_keep_their_ends() {
        let long = "a group of benchmarks/somebody::and::their::lock";
        let short = cut(long);
        assert!(
            short.chars().count() <= 33 && short.starts_with("a group") && short.ends_with("lock"),
            "{short}"
        );
        assert_eq!(cut("spin_lock_unlock"), "spin_lock_unlock");
    }

    #[test]
    fn odd_values_stay_inside() {
        for values in [vec![], vec![0.0], vec![1e-9, 1e9], vec![5.0, 5.0]] {
            let many: Vec<Bar> = values.iter().copied().map(bar).collect();
            for scale in [Scale::Linear, Scale::Log { line: None }, Scale::Log { line: Some(1.0) }] {
                assert_marks_are_inside(&bars("odd", &many, scale));
            }
            let points = (1..).zip(&values).map(|(x, v)| (f64::from(x), *v)).collect();
            let line = Line { label: "x".into(), points, colour: 9, dashed: false };
            for up in [Up::Evenly, Up::ByTens] {
                let svg = lines("odd", "CPUs", "a second", up, slice::from_ref(&line));
                assert_marks_are_inside(&svg);
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
    }
}
