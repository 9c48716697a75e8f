// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Sizes of the plot, in pixels.
const (
	plotWidth   = 900
	panelHeight = 300
	plotLeft    = 60
	plotRight   = 20
	panelTop    = 56
	panelBottom = 34
	groupGap    = 0.18 // of a group's width
)

// colours by proxy: the features of a kind darken its hue.
var colours = map[string]string{
	"nginx": "#4c9a5b", "haproxy": "#8a8f98", "envoy": "#d9a9d0", "envoy-on": "#a8509a",
	"sidecar": "#8fb8e8", "sidecar-on": "#1f66b8", "sidecar-all": "#123f73",
}

// plot draws CPU per request as bars, a panel for each body and a group for each
// number of connections, with a line from the least to the greatest sample; below
// them the protocols, relative to HAProxy.
func (r *Result) plot() string {
	var b strings.Builder
	var panels []func(top float64)
	if len(r.Load) > 0 {
		for _, body := range r.Options.Bodies {
			panels = append(panels, func(top float64) { r.panel(&b, body, top) })
		}
	}
	if len(r.Protocols) > 0 {
		panels = append(panels, func(top float64) { r.protocolPanel(&b, top) })
	}
	height := panelHeight * len(panels)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12" fill="#222">`+"\n", plotWidth, height)
	fmt.Fprintf(&b, `<title>CPU microseconds per request</title>`+"\n"+`<rect width="%d" height="%d" fill="#fff"/>`+"\n", plotWidth, height)
	for i, draw := range panels {
		draw(float64(i * panelHeight))
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func (r *Result) panel(b *strings.Builder, body string, top float64) {
	fmt.Fprintf(b, `<text x="%d" y="%.1f" font-size="14" font-weight="bold">CPU µs per request, %s body (lower is better)</text>`+"\n",
		plotLeft, top+20, html.EscapeString(body))
	var names []string
	highest := 0.0
	for _, p := range proxies {
		here := false
		for _, n := range r.Options.Connections {
			if c := r.cell(p.Name, body, n); c != nil {
				here = true
				highest = max(highest, c.cpu().Max)
			}
		}
		if here {
			names = append(names, p.Name)
		}
	}
	if highest == 0 {
		return
	}
	legend(b, names, top+40)
	step := niceStep(highest / 5)
	ceiling := step * math.Ceil(1.08*highest/step) // room for the label above the highest
	floor := top + panelHeight - panelBottom
	scale := (floor - top - panelTop) / ceiling
	for v := 0.0; v <= ceiling+step/2; v += step {
		y := floor - v*scale
		fmt.Fprintf(b, `<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%g</text>`+"\n",
			plotLeft, y, plotWidth-plotRight, y, plotLeft-6, y+4, v)
	}
	group := float64(plotWidth-plotLeft-plotRight) / float64(len(r.Options.Connections))
	bar := group * (1 - groupGap) / float64(len(names))
	for i, n := range r.Options.Connections {
		left := plotLeft + float64(i)*group
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="middle">%d connections</text>`+"\n", left+group/2, floor+20, n)
		for k, name := range names {
			if c := r.cell(name, body, n); c != nil {
				drawBar(b, c, left+group*groupGap/2+float64(k)*bar, bar, floor, scale)
			}
		}
	}
}

func drawBar(b *strings.Builder, c *Cell, x, width, floor, scale float64) {
	s := c.cpu()
	mid := x + width/2
	fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"><title>%s: %.2f (%.2f–%.2f)</title></rect>`,
		x+1, floor-s.Median*scale, width-2, s.Median*scale, colours[c.Proxy], html.EscapeString(c.Proxy), s.Median, s.Min, s.Max)
	fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#222"/>`, mid, floor-s.Min*scale, mid, floor-s.Max*scale)
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="middle" font-size="10">%.1f</text>`+"\n", mid, floor-s.Max*scale-4, s.Median)
}

func legend(b *strings.Builder, names []string, y float64) {
	x := float64(plotLeft)
	for _, name := range names {
		fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="11" height="11" fill="%s"/><text x="%.1f" y="%.1f">%s</text>`+"\n",
			x, y-10, colours[name], x+16, y, html.EscapeString(name))
		x += 36 + 7*float64(len(name))
	}
}

// niceStep is the least of 1, 2 and 5 times a power of ten that is not below v.
func niceStep(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5} {
		if m*power >= v {
			return m * power
		}
	}
	return 10 * power
}
