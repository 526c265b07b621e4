package dns

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// DNS over TCP as RFC 7766 and RFC 9210 ask: connections live on after a query,
// queries may be pipelined and are answered as they get ready.
const (
	maxConns    = 256
	maxPipeline = 16
	// tcpIdle is how long a connection may be silent (RFC 9210, section 4.2
	// leaves seconds to minutes).
	tcpIdle = 10 * time.Second
	// tcpStall bounds the reading of one begun message and the writing of one.
	tcpStall = 5 * time.Second
	// acceptRest follows an accept that failed for want of descriptors.
	acceptRest = 50 * time.Millisecond
)

func (s *Server) serveTCP(ctx context.Context, l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if !exhausted(err) {
				return fmt.Errorf("DNS over TCP on %s: %w", l.Addr(), err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(acceptRest):
			}
			continue
		}
		select {
		case s.conns <- struct{}{}:
		default:
			s.metrics.Overloaded.Add(1)
			c.Close()
			continue
		}
		s.tasks.Go(func() {
			defer func() { <-s.conns }()
			s.serveConn(ctx, c)
		})
	}
}

func exhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) ||
		errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM) ||
		errors.Is(err, syscall.ECONNABORTED)
}

// serveConn answers one connection's queries until it is silent for too long,
// breaks or ends. Answers still being made are sent before it is closed.
func (s *Server) serveConn(ctx context.Context, c net.Conn) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	var pending sync.WaitGroup
	defer pending.Wait()
	w := &replyWriter{conn: c}
	r := bufio.NewReaderSize(c, maxQuery)
	pipeline := make(chan struct{}, maxPipeline)
	for {
		req, err := readQuery(c, r)
		if err != nil {
			return
		}
		if reply := s.packed(make([]byte, 0, 512), req, false); reply != nil {
			w.write(reply)
			continue
		}
		pipeline <- struct{}{}
		pending.Go(func() {
			defer func() { <-pipeline }()
			if reply := s.answer(ctx, req, false); reply != nil {
				w.write(reply)
			}
		})
	}
}

func readQuery(c net.Conn, r *bufio.Reader) ([]byte, error) {
	c.SetReadDeadline(time.Now().Add(tcpIdle))
	size, err := r.Peek(2)
	if err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(size))
	if n > maxQuery {
		return nil, fmt.Errorf("query of %d bytes", n)
	}
	r.Discard(2)
	c.SetReadDeadline(time.Now().Add(tcpStall))
	req := make([]byte, n)
	_, err = io.ReadFull(r, req)
	return req, err
}

// replyWriter sends whole messages, one at a time.
type replyWriter struct {
	mu   sync.Mutex // held while a message is written
	conn net.Conn
}

// write sends length and message in one write (RFC 7766, section 8). After an
// error the connection is of no use.
func (w *replyWriter) write(msg []byte) {
	framed := binary.BigEndian.AppendUint16(make([]byte, 0, len(msg)+2), uint16(len(msg)))
	framed = append(framed, msg...)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conn.SetWriteDeadline(time.Now().Add(tcpStall))
	if _, err := w.conn.Write(framed); err != nil {
		w.conn.Close()
	}
}
