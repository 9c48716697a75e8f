// SPDX-License-Identifier: Apache-2.0

package filter

// maxKept bounds what filters keep of one connection: configurations come and go while
// it lives.
const maxKept = 8

// ConnectionState is what filters keep of a downstream connection from one request to
// the next. It ends with the connection, and belongs to its loop. The zero value is
// empty.
type ConnectionState struct{ kept []kept }

type kept struct{ key, value any }

// Get returns what was put under the key, nil for nothing.
func (s *ConnectionState) Get(key any) any {
	for i := range s.kept {
		if s.kept[i].key == key {
			return s.kept[i].value
		}
	}
	return nil
}

// Put keeps value under a key that nothing is kept under; a pointer of the filter's
// configuration is one that no other filter has. Where there is too much, what was put
// first is forgotten.
func (s *ConnectionState) Put(key, value any) {
	if len(s.kept) == maxKept {
		copy(s.kept, s.kept[1:])
		s.kept = s.kept[:maxKept-1]
	}
	s.kept = append(s.kept, kept{key, value})
}
