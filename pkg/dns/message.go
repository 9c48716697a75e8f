// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"errors"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	headerBytes = 12
	// ttl is how many seconds an answer is good for: a name may leave the mesh.
	ttl = 30
	// plainUDP is the most that a client without EDNS0 takes (RFC 1035, 4.2.1).
	plainUDP = 512
	// mostUDP is the most sent by UDP, whatever a client says it takes.
	mostUDP = 4096
)

var (
	errNotQuery = errors.New("no query")
	errShort    = errors.New("shorter than a header")
)

// query is what has been asked.
type query struct {
	header   dnsmessage.Header
	question dnsmessage.Question
	name     string // in lower case, without the final dot
	edns     bool
	udpBytes int // the most that the client takes by UDP
}

// parseQuery takes a message with exactly one question. What cannot be told who
// asks is an error; for the rest the code says what is wrong with it.
func parseQuery(raw []byte) (q query, code dnsmessage.RCode, err error) {
	if len(raw) < headerBytes {
		return q, 0, errShort
	}
	var p dnsmessage.Parser
	if q.header, err = p.Start(raw); err != nil {
		return q, 0, err
	}
	if q.header.Response {
		return q, 0, errNotQuery // answering answers would never end
	}
	if q.header.OpCode != 0 {
		return q, dnsmessage.RCodeNotImplemented, nil
	}
	questions, err := p.AllQuestions()
	if err != nil || len(questions) != 1 {
		return q, dnsmessage.RCodeFormatError, nil
	}
	q.question, q.udpBytes = questions[0], plainUDP
	q.name = strings.ToLower(strings.TrimSuffix(q.question.Name.String(), "."))
	if p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		return q, dnsmessage.RCodeFormatError, nil
	}
	for {
		h, err := p.AdditionalHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return q, 0, nil
		}
		if err != nil {
			return q, dnsmessage.RCodeFormatError, nil
		}
		if h.Type == dnsmessage.TypeOPT {
			if q.edns {
				return q, dnsmessage.RCodeFormatError, nil // RFC 6891, 6.1.1: one at most
			}
			q.edns, q.udpBytes = true, min(max(int(h.Class), plainUDP), mostUDP)
		}
		if p.SkipAdditional() != nil {
			return q, dnsmessage.RCodeFormatError, nil
		}
	}
}

// reply makes an answer; records fills in the answer section.
func (q *query) reply(code dnsmessage.RCode, records func(*dnsmessage.Builder, dnsmessage.ResourceHeader) error) ([]byte, error) {
	h := dnsmessage.Header{
		ID: q.header.ID, Response: true, OpCode: q.header.OpCode, RecursionDesired: q.header.RecursionDesired,
		RecursionAvailable: true, RCode: code,
	}
	b := dnsmessage.NewBuilder(make([]byte, 0, plainUDP), h)
	if q.question.Name.Length > 0 {
		b.EnableCompression()
		if err := b.StartQuestions(); err != nil {
			return nil, err
		}
		if err := b.Question(q.question); err != nil {
			return nil, err
		}
		if records != nil {
			if err := b.StartAnswers(); err != nil {
				return nil, err
			}
			if err := records(&b, dnsmessage.ResourceHeader{Name: q.question.Name, Class: dnsmessage.ClassINET, TTL: ttl}); err != nil {
				return nil, err
			}
		}
	}
	if q.edns {
		if err := b.StartAdditionals(); err != nil {
			return nil, err
		}
		var opt dnsmessage.ResourceHeader
		if err := opt.SetEDNS0(mostUDP, dnsmessage.RCodeSuccess, false); err != nil {
			return nil, err
		}
		if err := b.OPTResource(opt, dnsmessage.OPTResource{}); err != nil {
			return nil, err
		}
	}
	return b.Finish()
}

// truncate cuts an answer that is too long for UDP to its question, with the bit
// that makes the client come again by TCP.
func (q *query) truncate() ([]byte, error) {
	cut, err := q.reply(dnsmessage.RCodeSuccess, nil)
	if err == nil {
		cut[2] |= 0x02 // TC
	}
	return cut, err
}

// answers reports whether raw is an answer to what was asked with that id.
func (q *query) answers(raw []byte, id uint16) bool {
	var p dnsmessage.Parser
	h, err := p.Start(raw)
	if err != nil || !h.Response || h.ID != id {
		return false
	}
	got, err := p.Question()
	if errors.Is(err, dnsmessage.ErrSectionDone) {
		return h.RCode != dnsmessage.RCodeSuccess // some servers leave it out of errors
	}
	return err == nil && got.Type == q.question.Type && got.Class == q.question.Class &&
		strings.EqualFold(got.Name.String(), q.question.Name.String())
}

// setID writes the id of a message.
func setID(raw []byte, id uint16) { raw[0], raw[1] = byte(id>>8), byte(id) }
