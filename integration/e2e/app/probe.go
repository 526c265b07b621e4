package main

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// probeTLS connects with the workload's own SVID and tells the peer's SPIFFE ID:
// tls SOCKET ADDRESS:PORT.
func probeTLS(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errUsage
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr("unix://"+args[0])))
	if err != nil {
		return err
	}
	defer source.Close()
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", args[1])
	if err != nil {
		return tell(answer{Error: reason(err)})
	}
	defer raw.Close()
	conn := tls.Client(raw, tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeAny()))
	if err := conn.HandshakeContext(ctx); err != nil {
		return tell(answer{Error: err.Error()})
	}
	id, err := x509svid.IDFromCert(conn.ConnectionState().PeerCertificates[0])
	if err != nil {
		return err
	}
	return tell(answer{Body: id.String()})
}

// probePeer connects by TLS without a certificate and tells the peer's SPIFFE ID, and what
// the peer said to that: peer ADDRESS:PORT.
func probePeer(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var a answer
	config := &tls.Config{
		InsecureSkipVerify: true, // it is whoever it is: that is what we tell
		VerifyConnection: func(state tls.ConnectionState) error {
			id, err := x509svid.IDFromCert(state.PeerCertificates[0])
			a.Body = id.String()
			return err
		},
	}
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", args[0])
	if err == nil {
		// In TLS 1.3 a client is refused after its part of the handshake.
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, err = conn.Read(make([]byte, 1))
	}
	if err == nil {
		return errors.New("the server spoke to a client without a certificate")
	}
	a.Error = reason(err)
	return tell(a)
}

// probeRaw sends an HTTP request without TLS and tells what came back: raw ADDRESS:PORT.
func probeRaw(ctx context.Context, args []string) error {
	if len(args) < 1 || len(args) > 2 {
		return errUsage
	}
	message, limit := []byte("GET / HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n"), int64(1<<20)
	if len(args) == 2 {
		var err error
		if message, err = hex.DecodeString(args[1]); err != nil {
			return err
		}
		limit = 1 // whoever is asked something else than HTTP may go on waiting
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", args[0])
	if err != nil {
		return tell(answer{Error: reason(err)})
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write(message); err != nil {
		return tell(answer{Error: reason(err)})
	}
	body, err := io.ReadAll(io.LimitReader(conn, limit))
	if err == nil {
		err = io.EOF
	}
	return tell(answer{Body: string(body), Error: reason(err)})
}

// watch tells of each SVID that the Workload API hands out, one a line, until there were
// enough: watch SOCKET COUNT.
func watch(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errUsage
	}
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	client, err := workloadapi.New(ctx, workloadapi.WithAddr("unix://"+args[0]))
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &watcher{left: count, cancel: cancel}
	err = client.WatchX509Context(ctx, w)
	if context.Cause(ctx) == errSeen {
		return nil
	}
	return err
}

var errSeen = fmt.Errorf("seen enough")

// watcher prints what it is told.
type watcher struct {
	left   int
	cancel context.CancelCauseFunc
}

// OnX509ContextUpdate implements workloadapi.X509ContextWatcher.
func (w *watcher) OnX509ContextUpdate(c *workloadapi.X509Context) {
	if w.left <= 0 {
		return
	}
	svid := c.DefaultSVID()
	_ = tell(map[string]any{
		"id": svid.ID.String(), "serial": svid.Certificates[0].SerialNumber.String(),
		"notAfter": svid.Certificates[0].NotAfter, "roots": len(c.Bundles.Bundles()),
	})
	if w.left--; w.left == 0 {
		w.cancel(errSeen)
	}
}

// OnX509ContextWatchError implements workloadapi.X509ContextWatcher.
func (w *watcher) OnX509ContextWatchError(err error) {
	if w.left > 0 {
		_ = tell(answer{Error: err.Error()})
	}
}

// pipe connects standard input and output with an address: pipe ADDRESS:PORT.
func pipe(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", args[0])
	if err != nil {
		return err
	}
	defer conn.Close()
	ended := make(chan error, 2)
	for _, copy := range []func() (int64, error){
		func() (int64, error) { return io.Copy(conn, os.Stdin) },
		func() (int64, error) { return io.Copy(os.Stdout, conn) },
	} {
		go func() {
			_, err := copy()
			ended <- err
		}()
	}
	return <-ended
}
