// SPDX-License-Identifier: Apache-2.0

package event

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Number is one number of a decision, by the name of the setting that it stands for
// where there is one. Units are in the name: openMillis, ejectedPercent.
type Number struct {
	Name  string
	Value float64
}

// Numbers are in the order in which they explain the decision. As JSON they are an
// object in that order.
type Numbers []Number

// Get is the number of that name, and whether there is one.
func (n Numbers) Get(name string) (float64, bool) {
	for _, x := range n {
		if x.Name == name {
			return x.Value, true
		}
	}
	return 0, false
}

// String is what people read: "failuresInARow 5, threshold 5".
func (n Numbers) String() string {
	var b strings.Builder
	for i, x := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(x.Name + " " + x.text())
	}
	return b.String()
}

// text is the number with at most three digits behind the point; JSON has nothing for
// what is not finite.
func (x Number) text() string {
	if math.IsNaN(x.Value) || math.IsInf(x.Value, 0) {
		return "0"
	}
	v := math.Round(x.Value*1000) / 1000
	if math.IsInf(v, 0) {
		v = x.Value
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

// MarshalJSON implements json.Marshaler.
func (n Numbers) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, x := range n {
		if i > 0 {
			b = append(b, ',')
		}
		name, err := json.Marshal(x.Name)
		if err != nil {
			return nil, err
		}
		b = append(append(b, name...), ':')
		b = append(b, x.text()...)
	}
	return append(b, '}'), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (n *Numbers) UnmarshalJSON(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	open, err := d.Token()
	if err != nil {
		return err
	}
	*n = nil
	if open == nil { // null
		return nil
	}
	if open != json.Delim('{') {
		return fmt.Errorf("numbers: want an object, got %v", open)
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		var value float64
		if err := d.Decode(&value); err != nil {
			return fmt.Errorf("numbers.%v: %w", name, err)
		}
		*n = append(*n, Number{name.(string), value}) // a key of an object is a string
	}
	return nil
}
