//! A plot as SVG, by hand: axes, lines, a legend below.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 34.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 52.0;
const LEGEND_ROW: f64 = 20.0;

#[derive(Debug)]
pub struct Plot {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
}

#[derive(Debug)]
pub struct Axis {
    pub name: String,
    pub from: f64,
    pub to: f64,
    pub logarithmic: bool,
}

#[derive(Debug)]
pub struct Series {
    pub name: String,
    pub color: &'static str,
    pub dashed: bool,
    /// With a dot on each point.
    pub marked: bool,
    pub points: Vec<(f64, f64)>,
}

impl Axis {
    /// From 0 to 1.
    fn part(&self, value: f64) -> f64 {
        let value = value.clamp(self.from, self.to);
        if self.logarithmic {
            (value / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        }
    }

    /// Where it has a line: at the powers of ten, or at the fifths.
    fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            let powers = (0..10).map(|n| 10f64.powi(n));
            powers.filter(|value| (self.from..=self.to).contains(value)).collect()
        } else {
            (0..=5).map(|n| self.from + (self.to - self.from) * f64::from(n) / 5.0).collect()
        }
    }
}

impl Plot {
    /// Prints the points and writes the picture into `docs`.
    pub fn write(&self, file: &str) {
        for series in &self.series {
            for (x, y) in &series.points {
                println!("point: {file}: {}: {x:.2} {y:.2}", series.name);
            }
        }
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(file);
        std::fs::write(&path, self.svg()).expect("docs can be written to");
        println!("wrote docs/{file}");
    }

    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let (width, height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
        (LEFT + width * self.x.part(x), TOP + height * (1.0 - self.y.part(y)))
    }

    fn svg(&self) -> String {
        let height = HEIGHT + LEGEND_ROW * self.series.len() as f64 + 8.0;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
             font-family=\"sans-serif\" font-size=\"13\" fill=\"#222222\">\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
        );
        text(&mut svg, (WIDTH / 2.0, 22.0), "middle", &self.title);
        self.axes(&mut svg);
        for (row, series) in self.series.iter().enumerate() {
            self.series(&mut svg, series);
            let y = HEIGHT + LEGEND_ROW * row as f64;
            line(&mut svg, &[(LEFT, y), (LEFT + 36.0, y)], series);
            text(&mut svg, (LEFT + 46.0, y + 4.0), "start", &series.name);
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn axes(&self, svg: &mut String) {
        let grid = Series { name: String::new(), color: "#dddddd", dashed: false, marked: false, points: Vec::new() };
        for value in self.x.ticks() {
            let ends = [self.at((value, self.y.from)), self.at((value, self.y.to))];
            line(svg, &ends, &grid);
            text(svg, (ends[0].0, ends[0].1 + 18.0), "middle", &number(value));
        }
        for value in self.y.ticks() {
            let ends = [self.at((self.x.from, value)), self.at((self.x.to, value))];
            line(svg, &ends, &grid);
            text(svg, (ends[0].0 - 8.0, ends[0].1 + 4.0), "end", &number(value));
        }
        text(svg, (WIDTH / 2.0, HEIGHT - 16.0), "middle", &self.x.name);
        text(svg, (8.0, TOP - 12.0), "start", &self.y.name);
    }

    fn series(&self, svg: &mut String, series: &Series) {
        let points: Vec<_> = series.points.iter().map(|point| self.at(*point)).collect();
        line(svg, &points, series);
        for (x, y) in points.iter().filter(|_| series.marked) {
            let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{}\"/>", series.color);
        }
    }
}

fn number(value: f64) -> String {
    if value >= 1000.0 && value % 1000.0 == 0.0 { format!("{},000", value / 1000.0) } else { format!("{value}") }
}

fn line(svg: &mut String, points: &[(f64, f64)], look: &Series) {
    let points: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let (width, dashes) = match (look.name.is_empty(), look.dashed) {
        (true, _) => ("1", ""),
        (false, false) => ("2", ""),
        (false, true) => ("2", " stroke-dasharray=\"7 4\""),
    };
    let (points, color) = (points.join(" "), look.color);
    let _ = writeln!(
        svg,
        "<polyline points=\"{points}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"{width}\"{dashes}/>"
    );
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}
