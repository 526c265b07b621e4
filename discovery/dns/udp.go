package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"

	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"
)

const (
	batchSize = 32
	// maxQuery is the longest query read. Real ones have up to 300 bytes.
	maxQuery = 4096
)

// batchConn reads and writes several datagrams in one system call. An
// *ipv4.PacketConn is one, over IPv6 too: it only calls recvmmsg and sendmmsg.
type batchConn interface {
	ReadBatch(ms []ipv4.Message, flags int) (int, error)
	WriteBatch(ms []ipv4.Message, flags int) (int, error)
}

// single makes a batchConn of any net.PacketConn.
type single struct{ net.PacketConn }

func (c single) ReadBatch(ms []ipv4.Message, _ int) (int, error) {
	n, addr, err := c.ReadFrom(ms[0].Buffers[0])
	if err != nil {
		return 0, err
	}
	ms[0].N, ms[0].Addr = n, addr
	return 1, nil
}

func (c single) WriteBatch(ms []ipv4.Message, _ int) (int, error) {
	if _, err := c.WriteTo(ms[0].Buffers[0], ms[0].Addr); err != nil {
		return 0, err
	}
	return 1, nil
}

// serveUDP answers packed questions itself, a batch at a time, and gives each
// other one a goroutine.
func (s *Server) serveUDP(ctx context.Context, c net.PacketConn) error {
	var conn batchConn = single{c}
	if u, ok := c.(*net.UDPConn); ok {
		conn = ipv4.NewPacketConn(u)
	}
	in := make([]ipv4.Message, batchSize)
	out := make([]ipv4.Message, batchSize)
	for i := range in {
		in[i].Buffers = [][]byte{make([]byte, maxQuery)}
		out[i].Buffers = [][]byte{make([]byte, 0, maxUDP)}
	}
	for {
		n, err := conn.ReadBatch(in, 0)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if passing(err) {
				continue
			}
			return fmt.Errorf("DNS over UDP on %s: %w", c.LocalAddr(), err)
		}
		replies := 0
		for _, m := range in[:n] {
			req := m.Buffers[0][:m.N]
			o := &out[replies]
			if reply := s.packed(o.Buffers[0][:0], req, true); reply != nil {
				o.Buffers[0], o.Addr = reply, m.Addr
				replies++
				continue
			}
			s.answerUDP(ctx, c, slices.Clone(req), m.Addr)
		}
		writeBatch(conn, out[:replies])
	}
}

// writeBatch sends all it can; a datagram that cannot be sent is lost, as
// datagrams are.
func writeBatch(conn batchConn, out []ipv4.Message) {
	for len(out) > 0 {
		n, err := conn.WriteBatch(out, 0)
		if err != nil || n <= 0 {
			n = 1
		}
		out = out[n:]
	}
}

// answerUDP takes the whole road in a goroutine of its own.
func (s *Server) answerUDP(ctx context.Context, c net.PacketConn, req []byte, to net.Addr) {
	select {
	case s.slots <- struct{}{}:
	default:
		s.metrics.Overloaded.Add(1)
		if len(req) >= headerSize && req[2]&0x80 == 0 {
			c.WriteTo(errorReply(req, dns.RcodeServerFailure), to)
		}
		return
	}
	s.tasks.Go(func() {
		defer func() { <-s.slots }()
		if reply := s.answer(ctx, req, true); reply != nil {
			c.WriteTo(reply, to)
		}
	})
}

// passing reports whether a read error says nothing about the socket itself.
func passing(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EINTR) ||
		errors.Is(err, syscall.EMSGSIZE) || errors.Is(err, syscall.ENOBUFS)
}
