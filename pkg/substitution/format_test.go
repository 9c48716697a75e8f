// SPDX-License-Identifier: Apache-2.0

package substitution

import (
	"strings"
	"testing"
)

func TestFormatsParse(t *testing.T) {
	for in, want := range map[string][]Part{
		"":                        nil,
		"plain":                   {{Literal: "plain"}},
		"100%%":                   {{Literal: "100%"}},
		"%REQ(X-A?:PATH):10% end": {{Command: "REQ", Arg: "x-a", Alt: ":path", HasArg: true, Max: 10}, {Literal: " end"}},
		"a%PROTOCOL%b":            {{Literal: "a"}, {Command: "PROTOCOL"}, {Literal: "b"}},
		"%START_TIME(%s.%3f)%":    {{Command: "START_TIME", Arg: "%s.%3f", HasArg: true}},
	} {
		f, err := Parse(in)
		if err != nil {
			t.Errorf("%q: %v", in, err)
			continue
		}
		if len(f.Parts) != len(want) {
			t.Errorf("%q: got %+v", in, f.Parts)
			continue
		}
		for i := range want {
			if f.Parts[i] != want[i] {
				t.Errorf("%q: part %d: got %+v, want %+v", in, i, f.Parts[i], want[i])
			}
		}
	}
}

func TestWrongFormatsNameTheirPlaceAndCommand(t *testing.T) {
	for in, want := range map[string]string{
		"ab%NOPE%":        "at byte 2: unknown command %NOPE%",
		"%":               "must start a command or be doubled",
		"%REQ%":           "%REQ% needs a header name",
		"%REQ(?x)%":       "the header name is empty",
		"%REQ(x%":         "the parenthesis is not closed",
		"%PROTOCOL(x)%":   "takes no argument",
		"%PROTOCOL:x%":    "is not a number",
		"%PROTOCOL":       "does not end with a percent sign",
		"%ENVIRONMENT%":   "needs an argument",
		"%ENVIRONMENT()%": "needs an argument",
	} {
		_, err := Parse(in)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", in, err, want)
		}
	}
}

func TestHeadersTakeOnlyWhatARunningExchangeKnows(t *testing.T) {
	for in, ok := range map[string]bool{"%REQ(x)% %DURATION%": true, "%RESPONSE_TX_DURATION%": false, "text": true, "%DYNAMIC_METADATA(a)%": false} {
		f, err := Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.ForHeaders(); (err == nil) != ok {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "%%", "%REQ(A?B):3%", "%START_TIME(%s)%", "%", "%REQ(", "a%PROTOCOL%b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := Parse(s)
		if err != nil {
			return
		}
		for _, p := range got.Parts {
			if p.Command == "" && p.Literal == "" {
				t.Errorf("%q has an empty part", s)
			}
		}
	})
}
