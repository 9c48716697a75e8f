// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// protocolPanel draws the scenarios side by side. What they count differs, so that
// each is drawn relative to HAProxy; one that HAProxy was not measured in is left out.
func (r *Result) protocolPanel(b *strings.Builder, top float64) {
	fmt.Fprintf(b, `<text x="%d" y="%.1f" font-size="14" font-weight="bold">CPU relative to HAProxy, by scenario (lower is better)</text>`+"\n", plotLeft, top+20)
	var shown []*scenario
	var names []string
	highest := 0.0
	for _, p := range proxies {
		here := false
		for i := range scenarios {
			if x := r.relative(p.Name, &scenarios[i]); x.N > 0 {
				here, highest = true, max(highest, x.Max)
			}
		}
		if here {
			names = append(names, p.Name)
		}
	}
	for i := range scenarios {
		if r.protocol("haproxy", scenarios[i].Name) != nil {
			shown = append(shown, &scenarios[i])
		}
	}
	if highest == 0 {
		return
	}
	legend(b, names, top+40)
	step := niceStep(highest / 5)
	ceiling := step * math.Ceil(1.08*highest/step)
	floor := top + panelHeight - panelBottom
	scale := (floor - top - panelTop) / ceiling
	for v := 0.0; v <= ceiling+step/2; v += step {
		y := floor - v*scale
		fmt.Fprintf(b, `<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%g</text>`+"\n",
			plotLeft, y, plotWidth-plotRight, y, plotLeft-6, y+4, v)
	}
	group := float64(plotWidth-plotLeft-plotRight) / float64(len(shown))
	bar := group * (1 - groupGap) / float64(len(names))
	for i, x := range shown {
		left := plotLeft + float64(i)*group
		// Names stand in two lines in turn, as they are longer than their groups.
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="middle" font-size="9">%s</text>`+"\n", left+group/2, floor+12+float64(i%2)*11, html.EscapeString(x.Name))
		for k, name := range names {
			if v := r.relative(name, x); v.N > 0 {
				drawRelative(b, name, v, left+group*groupGap/2+float64(k)*bar, bar, floor, scale)
			}
		}
	}
}

func (r *Result) relative(proxy string, x *scenario) Spread {
	return r.protocol(proxy, x.Name).ratioTo(r.protocol("haproxy", x.Name))
}

func drawRelative(b *strings.Builder, proxy string, s Spread, x, width, floor, scale float64) {
	mid := x + width/2
	fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"><title>%s: %.2f (%.2f–%.2f)</title></rect>`,
		x+0.5, floor-s.Median*scale, width-1, s.Median*scale, colours[proxy], html.EscapeString(proxy), s.Median, s.Min, s.Max)
	fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#222"/>`, mid, floor-s.Min*scale, mid, floor-s.Max*scale)
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="middle" font-size="7">%.2f</text>`+"\n", mid, floor-s.Max*scale-3, s.Median)
}
