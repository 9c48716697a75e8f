// SPDX-License-Identifier: Apache-2.0

package reactor

// chunkSize is chosen so that a chunk with its header is one size class of Go.
const chunkSize = 16<<10 - 32

// smallChunk is the size of a queue's first chunk where what comes first is no
// larger: the heads of hundreds of requests that leave in one tick would each touch
// a page of its own.
const smallChunk = 2 << 10

// chunk is a piece of a connection's output: data[r:w] waits to be written.
type chunk struct {
	next *chunk
	r, w int
	data []byte // chunkSize or smallChunk long, but for one that Reserve made for a large piece
}

// input is what a handler left over: data[r:w].
type input struct {
	r, w int
	data []byte
}

func (b *input) bytes() []byte { return b.data[b.r:b.w] }

// pools are the free lists of one loop. They are bounded: what a burst took
// beyond the bound goes back to the garbage collector.
type pools struct {
	chunks  *chunk
	nchunks int
	small   *chunk
	nsmall  int
	inputs  [len(inputSizes)][]*input
}

const (
	maxFreeChunks = 256  // 4 MiB
	maxFreeSmall  = 1024 // 2 MiB
	maxFreeInputs = 64   // of each size
)

// inputSizes are the capacities of leftover buffers; beyond the last they double.
var inputSizes = [...]int{4 << 10, 16 << 10, 64 << 10, 128 << 10}

func (p *pools) chunk() *chunk {
	c := p.chunks
	if c == nil {
		return &chunk{data: make([]byte, chunkSize)}
	}
	p.chunks, c.next = c.next, nil
	p.nchunks--
	return c
}

// first returns the first chunk of a queue, with room for n bytes.
func (p *pools) first(n int) *chunk {
	if n > smallChunk {
		return p.chunk()
	}
	c := p.small
	if c == nil {
		return &chunk{data: make([]byte, smallChunk)}
	}
	p.small, c.next = c.next, nil
	p.nsmall--
	return c
}

func (p *pools) freeChunk(c *chunk) {
	if len(c.data) == smallChunk && p.nsmall < maxFreeSmall {
		c.r, c.w, c.next = 0, 0, p.small
		p.small = c
		p.nsmall++
		return
	}
	if len(c.data) != chunkSize || p.nchunks >= maxFreeChunks {
		return
	}
	c.r, c.w, c.next = 0, 0, p.chunks
	p.chunks = c
	p.nchunks++
}

// input returns a buffer that holds at least n bytes.
func (p *pools) input(n int) *input {
	for class, size := range inputSizes {
		if n > size {
			continue
		}
		free := p.inputs[class]
		if len(free) == 0 {
			return &input{data: make([]byte, size)}
		}
		b := free[len(free)-1]
		p.inputs[class] = free[:len(free)-1]
		return b
	}
	size := inputSizes[len(inputSizes)-1]
	for size < n {
		size *= 2
	}
	return &input{data: make([]byte, size)}
}

func (p *pools) freeInput(b *input) {
	for class, size := range inputSizes {
		if len(b.data) == size && len(p.inputs[class]) < maxFreeInputs {
			b.r, b.w = 0, 0
			p.inputs[class] = append(p.inputs[class], b)
		}
	}
}

// add appends more to b, in a larger buffer if it has to, and returns where it is.
func (p *pools) add(b *input, more []byte) *input {
	held := b.w - b.r
	if held+len(more) > len(b.data) {
		larger := p.input(held + len(more))
		larger.w = copy(larger.data, b.bytes())
		p.freeInput(b)
		b = larger
	} else if b.w+len(more) > len(b.data) {
		b.w = copy(b.data, b.bytes())
		b.r = 0
	}
	b.w += copy(b.data[b.w:], more)
	return b
}
