// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-mesh/outrigger/pkg/substitution"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// maxRegexBytes bounds a regular expression: matching is linear in it.
const maxRegexBytes = 1024

// maxDuration keeps every duration far from overflow.
const maxDuration = 10 * 365 * 24 * time.Hour

// duration reads d, or returns def where it is not set.
func (j *job) duration(d *durationpb.Duration, def time.Duration, p *place) time.Duration {
	if d == nil {
		return def
	}
	if err := d.CheckValid(); err != nil {
		j.fail(p, "is no valid duration: %s", cleanError(err))
		return def
	}
	v := d.AsDuration()
	if v < 0 || v > maxDuration {
		j.fail(p, "must be between 0s and %s, is %s", maxDuration, v)
		return def
	}
	return v
}

func uint32Or(v *wrapperspb.UInt32Value, def uint32) uint32 {
	if v == nil {
		return def
	}
	return v.GetValue()
}

func boolOr(v *wrapperspb.BoolValue, def bool) bool {
	if v == nil {
		return def
	}
	return v.GetValue()
}

// only refuses a switch that is on.
func (j *job) only(bad bool, p *place, why string) {
	if bad {
		j.fail(p, "%s", why)
	}
}

// regex compiles an expression that must match the whole text.
func (j *job) regex(m *matcherv3.RegexMatcher, p *place) *regexp.Regexp {
	if j.checkRegex(m, p) == nil {
		return nil
	}
	re, err := regexp.Compile(`^(?:` + m.GetRegex() + `)$`)
	if err != nil {
		j.fail(p.field("regex"), "%v", err)
		return nil
	}
	return re
}

// checkRegex compiles an expression as it is.
func (j *job) checkRegex(m *matcherv3.RegexMatcher, p *place) *regexp.Regexp {
	s := m.GetRegex()
	switch {
	case m == nil || s == "":
		j.fail(p.field("regex"), "is empty")
		return nil
	case len(s) > maxRegexBytes:
		j.fail(p.field("regex"), "has %d bytes, at most %d are accepted", len(s), maxRegexBytes)
		return nil
	}
	re, err := regexp.Compile(s)
	if err != nil {
		j.fail(p.field("regex"), "%v", err)
		return nil
	}
	return re
}

// rewrite reads a pattern and its substitution.
func (j *job) rewrite(m *matcherv3.RegexMatchAndSubstitute, p *place) *resource.RegexRewrite {
	if m == nil {
		return nil
	}
	re := j.checkRegex(m.GetPattern(), p.field("pattern"))
	if re == nil {
		return nil
	}
	sub, bad := expand(m.GetSubstitution(), re.NumSubexp())
	if bad != "" {
		j.fail(p.field("substitution"), "%s", bad)
		return nil
	}
	return &resource.RegexRewrite{Regex: re, Substitution: sub}
}

// expand turns RE2's \1 into Go's ${1}.
func expand(s string, groups int) (string, string) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '$':
			b.WriteString("$$")
		case c != '\\':
			b.WriteByte(c)
		case i+1 < len(s) && s[i+1] == '\\':
			b.WriteByte('\\')
			i++
		case i+1 < len(s) && s[i+1] >= '0' && s[i+1] <= '9':
			i++
			if n := int(s[i] - '0'); n > groups {
				return "", "refers to group " + strconv.Itoa(n) + ", the pattern has " + strconv.Itoa(groups)
			}
			b.WriteString("${" + s[i:i+1] + "}")
		default:
			return "", `a backslash must be followed by a digit or a backslash`
		}
	}
	return b.String(), ""
}

// stringMatch reads a StringMatcher.
func (j *job) stringMatch(m *matcherv3.StringMatcher, p *place) resource.StringMatch {
	out := resource.StringMatch{Fold: m.GetIgnoreCase()}
	switch v := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		out.Kind, out.Value = resource.MatchExact, v.Exact
	case *matcherv3.StringMatcher_Prefix:
		out.Kind, out.Value = resource.MatchPrefix, v.Prefix
	case *matcherv3.StringMatcher_Suffix:
		out.Kind, out.Value = resource.MatchSuffix, v.Suffix
	case *matcherv3.StringMatcher_Contains:
		out.Kind, out.Value = resource.MatchContains, v.Contains
	case *matcherv3.StringMatcher_SafeRegex:
		out.Kind = resource.MatchRegex
		out.Regex = j.regex(v.SafeRegex, p.field("safe_regex"))
		j.only(out.Fold, p.field("ignore_case"), "has no effect on safe_regex; write (?i) into it")
	default:
		j.fail(p, "has no pattern")
	}
	if out.Fold {
		out.Value = strings.ToLower(out.Value)
	}
	return out
}

// perMillion reads a fraction; more than all is an error.
func (j *job) perMillion(f *typev3.FractionalPercent, p *place) (perMillion, denominator uint32) {
	den := uint32(100)
	switch f.GetDenominator() {
	case typev3.FractionalPercent_TEN_THOUSAND:
		den = 10_000
	case typev3.FractionalPercent_MILLION:
		den = 1_000_000
	}
	if f.GetNumerator() > den {
		j.fail(p.field("numerator"), "%d is more than the denominator %d", f.GetNumerator(), den)
		return 0, den
	}
	return f.GetNumerator() * (1_000_000 / den), den
}

func (j *job) runtimeFraction(f *corev3.RuntimeFractionalPercent, p *place) resource.Percent {
	pm, den := j.perMillion(f.GetDefaultValue(), p.field("default_value"))
	return resource.Percent{RuntimeKey: f.GetRuntimeKey(), PerMillion: pm, Denominator: den}
}

// percent reads a Percent (0 to 100 with decimals); nil is def.
func (j *job) percent(v *typev3.Percent, def float64, p *place) float64 {
	if v == nil {
		return def
	}
	if !(v.GetValue() >= 0 && v.GetValue() <= 100) {
		j.fail(p.field("value"), "must be between 0 and 100, is %v", v.GetValue())
		return def
	}
	return v.GetValue()
}

// address reads a socket or pipe address.
func (j *job) address(a *corev3.Address, p *place) resource.Address {
	switch v := a.GetAddress().(type) {
	case *corev3.Address_SocketAddress:
		return j.socketAddress(v.SocketAddress, p.field("socket_address"))
	case *corev3.Address_Pipe:
		path := v.Pipe.GetPath()
		if path == "" || len(path) > 107 || strings.IndexByte(path, 0) >= 0 {
			j.fail(p.field("pipe").field("path"), "must have 1 to 107 bytes and no NUL")
		}
		return resource.Address{Path: path}
	default:
		j.fail(p, "has neither socket_address nor pipe")
	}
	return resource.Address{}
}

func (j *job) socketAddress(s *corev3.SocketAddress, p *place) resource.Address {
	j.only(s.GetProtocol() != corev3.SocketAddress_TCP, p.field("protocol"), "UDP is not supported by this version")
	ip, err := netip.ParseAddr(s.GetAddress())
	switch {
	case err != nil && j.hostNames:
		if !hostName(s.GetAddress()) {
			j.fail(p.field("address"), "%q is neither an IP address nor a host name", clip(s.GetAddress(), 100))
		}
	case err != nil || ip.Zone() != "" && !ip.Is6():
		j.fail(p.field("address"), "%q is no IP address", clip(s.GetAddress(), 100))
	}
	port, ok := s.GetPortSpecifier().(*corev3.SocketAddress_PortValue)
	switch {
	case !ok:
		j.fail(p.field("port_value"), "is missing")
		return resource.Address{}
	case port.PortValue > 65535:
		j.fail(p.field("port_value"), "%d is no port", port.PortValue)
	}
	return resource.Address{Host: j.intern(s.GetAddress()), Port: uint16(port.PortValue)}
}

func (j *job) prefixes(list []*corev3.CidrRange, p *place, name string) []netip.Prefix {
	var out []netip.Prefix
	for i, c := range list {
		ip, err := netip.ParseAddr(c.GetAddressPrefix())
		if err != nil {
			j.fail(p.item(name, i).field("address_prefix"), "%q is no IP address", clip(c.GetAddressPrefix(), 100))
			continue
		}
		pr, err := ip.Prefix(int(min(c.GetPrefixLen().GetValue(), 200)))
		if err != nil {
			j.fail(p.item(name, i).field("prefix_len"), "%d does not fit %s", c.GetPrefixLen().GetValue(), ip)
			continue
		}
		out = append(out, pr)
	}
	return out
}

// metadata keeps the text values of filter metadata.
func (j *job) metadata(m *corev3.Metadata) resource.Metadata {
	var out resource.Metadata
	for name, s := range m.GetFilterMetadata() {
		for k, v := range s.GetFields() {
			text, ok := v.GetKind().(*structpb.Value_StringValue)
			if !ok {
				continue
			}
			if out == nil {
				out = resource.Metadata{}
			}
			if out[name] == nil {
				out[j.intern(name)] = map[string]string{}
			}
			out[name][j.intern(k)] = j.intern(text.StringValue)
		}
	}
	return out
}

// format parses a format string.
func (j *job) format(s string, p *place) resource.Format {
	f, err := substitution.Parse(s)
	if err != nil {
		j.fail(p, "%v", err)
	}
	return f
}

// data reads a DataSource that is in the configuration itself.
func (j *job) data(d *corev3.DataSource, p *place) []byte {
	switch v := d.GetSpecifier().(type) {
	case *corev3.DataSource_InlineString:
		return []byte(v.InlineString)
	case *corev3.DataSource_InlineBytes:
		return v.InlineBytes
	case nil:
		return nil
	default:
		j.fail(p, "only inline_string and inline_bytes are supported by this version")
		return nil
	}
}
