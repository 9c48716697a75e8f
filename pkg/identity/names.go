// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
)

var (
	oidSubjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
)

// alternativeNames are the subject alternative names of a certificate or request.
type alternativeNames struct {
	uris  []string // their bytes as they stand there
	other []string // the kinds of all the others: "DNS", "IP", …
}

// The tags of GeneralName (RFC 5280, section 4.2.1.6).
var generalNames = [...]string{
	0: "other", 1: "email", 2: "DNS", 3: "X.400", 4: "directory", 5: "EDI", 6: "URI", 7: "IP", 8: "registered id",
}

const tagURI = 6

// readNames reads the names from the extensions themselves: crypto/x509 skips
// kinds that it does not know, and parses URIs where their bytes must be compared.
func readNames(extensions []pkix.Extension) (alternativeNames, error) {
	var names alternativeNames
	seen := false
	for _, e := range extensions {
		if !e.Id.Equal(oidSubjectAltName) {
			continue
		}
		if seen {
			return names, fmt.Errorf("two subject alternative name extensions")
		}
		seen = true
		var sequence asn1.RawValue
		rest, err := asn1.Unmarshal(e.Value, &sequence)
		switch {
		case err != nil:
			return names, fmt.Errorf("subject alternative names: %w", err)
		case len(rest) > 0 || sequence.Class != asn1.ClassUniversal || sequence.Tag != asn1.TagSequence || !sequence.IsCompound:
			return names, fmt.Errorf("subject alternative names: not one sequence")
		}
		for rest = sequence.Bytes; len(rest) > 0; {
			var name asn1.RawValue
			if rest, err = asn1.Unmarshal(rest, &name); err != nil {
				return names, fmt.Errorf("subject alternative names: %w", err)
			}
			switch {
			case name.Class != asn1.ClassContextSpecific || name.Tag >= len(generalNames):
				return names, fmt.Errorf("subject alternative names: class %d tag %d is no name", name.Class, name.Tag)
			case name.Tag == tagURI:
				names.uris = append(names.uris, string(name.Bytes))
			default:
				names.other = append(names.other, generalNames[name.Tag])
			}
		}
	}
	return names, nil
}
