// SPDX-License-Identifier: Apache-2.0

package proxy

// downstreamList is the worker's downstream connections.
type downstreamList struct {
	first *downstreamConn
	n     int
}

func (l *downstreamList) add(d *downstreamConn) {
	d.next = l.first
	if l.first != nil {
		l.first.prev = d
	}
	l.first = d
	l.n++
}

func (l *downstreamList) remove(d *downstreamConn) {
	if d.prev != nil {
		d.prev.next = d.next
	} else {
		l.first = d.next
	}
	if d.next != nil {
		d.next.prev = d.prev
	}
	d.prev, d.next = nil, nil
	l.n--
}

// left takes the connection off the books, whatever happens to its exchange.
func (d *downstreamConn) left() {
	d.countBytes()
	d.w.downs.remove(d)
	d.listener.left(d.chain)
	d.opened.cxActive--
	d.opened.cxDestroy++
}
