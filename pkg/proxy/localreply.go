// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"strconv"

	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// mapLocalReply applies the first mapper of local_reply_config that matches, and
// the body format. It is no hot path: replies of our own are the exception.
func (x *exchange) mapLocalReply() {
	m := x.manager.res
	if len(m.LocalReplies) == 0 && m.LocalReplyFormat == nil {
		return
	}
	format := m.LocalReplyFormat
	for i := range m.LocalReplies {
		r := &m.LocalReplies[i]
		if r.Filter != nil && !x.matchLog(r.Filter) {
			continue
		}
		if r.Status != 0 {
			x.Local.Status, x.Response.Status = r.Status, r.Status
		}
		if r.HasBody {
			x.localBody = append(x.localBody[:0], r.Body...)
			x.Local.Body = x.localBody
		}
		x.addHeaders(&x.Response.Header, r.Add, nil)
		if r.Format != nil {
			format = r.Format
		}
		break
	}
	if format == nil {
		return
	}
	x.Record.Status = uint16(x.Local.Status)
	body := bytes.Clone(x.Local.Body)
	var out []byte
	if len(format.JSON) > 0 {
		out = x.appendJSON(nil, format.JSON, body)
		x.Local.ContentType = "application/json"
	} else {
		out = x.appendReplyText(nil, &format.Text, body)
	}
	if format.ContentType != "" {
		x.Local.ContentType = format.ContentType
	}
	x.Local.Body = out
}

func (x *exchange) appendReplyText(dst []byte, f *resource.Format, body []byte) []byte {
	for i := range f.Parts {
		if f.Parts[i].Command == "LOCAL_REPLY_BODY" {
			dst = append(dst, body...)
			continue
		}
		one := resource.Format{Parts: f.Parts[i : i+1]}
		dst = x.appendFormat(dst, &one)
	}
	return dst
}

func (x *exchange) appendJSON(dst []byte, fields []resource.LogField, body []byte) []byte {
	dst = append(dst, '{')
	for i := range fields {
		f := &fields[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendQuote(dst, f.Name)
		dst = append(dst, ':')
		switch {
		case f.Format != nil:
			dst = strconv.AppendQuoteToASCII(dst, string(x.appendReplyText(nil, f.Format, body)))
		case f.Object != nil:
			dst = x.appendJSON(dst, f.Object, body)
		case f.Literal != "":
			dst = append(dst, f.Literal...)
		default:
			dst = append(dst, "null"...)
		}
	}
	return append(dst, '}')
}

// matchLog evaluates an access log filter over a running exchange.
func (x *exchange) matchLog(f *resource.LogFilter) bool {
	switch f.Kind {
	case resource.FilterStatus:
		return f.Op.Compare(uint32(x.Local.Status), f.Value)
	case resource.FilterDuration:
		return f.Op.Compare(uint32(x.since()/1e6), f.Value)
	case resource.FilterAnd:
		for _, s := range f.Sub {
			if !x.matchLog(s) {
				return false
			}
		}
		return true
	case resource.FilterOr:
		for _, s := range f.Sub {
			if x.matchLog(s) {
				return true
			}
		}
		return false
	case resource.FilterHeader:
		v, ok := requestValue(&x.Request, f.Header.Name, &x.w.joined)
		return matchHeader(f.Header, v, ok)
	case resource.FilterResponseFlag:
		if len(f.Flags) == 0 {
			return x.Record.Flags != 0
		}
		for _, name := range f.Flags {
			if flag, ok := record.ParseFlag(name); ok && x.Record.Flags&flag != 0 {
				return true
			}
		}
		return false
	case resource.FilterRuntime:
		return x.inFraction(&f.Percent)
	case resource.FilterTraceable:
		return x.Record.Trace.Sampled
	}
	return true
}
