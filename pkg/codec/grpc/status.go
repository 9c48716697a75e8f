// SPDX-License-Identifier: Apache-2.0

package grpc

// Status is a status code of a call.
type Status uint8

// The codes.
const (
	OK Status = iota
	Canceled
	Unknown
	InvalidArgument
	DeadlineExceeded
	NotFound
	AlreadyExists
	PermissionDenied
	ResourceExhausted
	FailedPrecondition
	Aborted
	OutOfRange
	Unimplemented
	Internal
	Unavailable
	DataLoss
	Unauthenticated
	Statuses // their number
)

// ParseStatus reads the field grpc-status. What is no code that the protocol
// defines is not ok.
func ParseStatus(v []byte) (s Status, ok bool) {
	switch len(v) {
	case 1:
		s = Status(v[0] - '0')
	case 2:
		if v[0] != '1' || v[1] < '0' || v[1] > '9' {
			return 0, false
		}
		s = 10 + Status(v[1]-'0')
	default:
		return 0, false
	}
	if s >= Statuses || len(v) == 1 && s > 9 {
		return 0, false
	}
	return s, true
}

// Append appends the field's value.
func (s Status) Append(dst []byte) []byte {
	if s >= 10 {
		dst = append(dst, '0'+byte(s/10))
	}
	return append(dst, '0'+byte(s%10))
}

// FromHTTP is the code of a response that is none of gRPC, by its status.
func FromHTTP(status int) Status {
	switch status {
	case 400:
		return Internal
	case 401:
		return Unauthenticated
	case 403:
		return PermissionDenied
	case 404:
		return Unimplemented
	case 429, 502, 503, 504:
		return Unavailable
	}
	return Unknown
}

// HTTP is the status that stands for a code wherever calls are judged by those of
// HTTP: circuits, outlier detection (Envoy's mapping).
func (s Status) HTTP() int {
	if s < Statuses {
		return int(httpStatuses[s])
	}
	return 500
}

var httpStatuses = [Statuses]uint16{
	OK: 200, Canceled: 499, Unknown: 500, InvalidArgument: 400, DeadlineExceeded: 504, NotFound: 404, AlreadyExists: 409,
	PermissionDenied: 403, ResourceExhausted: 429, FailedPrecondition: 400, Aborted: 409, OutOfRange: 400, Unimplemented: 501,
	Internal: 500, Unavailable: 503, DataLoss: 500, Unauthenticated: 401,
}

// AppendMessage appends the value of grpc-message, percent-encoded: printable
// ASCII but for % stands for itself.
func AppendMessage(dst, text []byte) []byte {
	const hex = "0123456789ABCDEF"
	for _, c := range text {
		if c < ' ' || c > '~' || c == '%' {
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		} else {
			dst = append(dst, c)
		}
	}
	return dst
}
