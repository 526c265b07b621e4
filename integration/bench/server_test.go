package bench

import (
	"bytes"
	"errors"
	"flag"
	"net"
	"net/http"
)

// bodySize is that of every answer over HTTP.
const bodySize = 1024

// serve is the program behind the sidecar: on --http it answers every request with 1 KiB,
// on --tcp it gives back what it gets, each on two ports, of which capture leaves the
// second alone. It ends with its sidecar.
func serve(args []string) error {
	fs := flag.NewFlagSet("serve", flag.ContinueOnError)
	var web, echo [2]string
	fs.StringVar(&web[0], "http", "", "ADDRESS:PORT")
	fs.StringVar(&web[1], "http-direct", "", "ADDRESS:PORT")
	fs.StringVar(&echo[0], "tcp", "", "ADDRESS:PORT")
	fs.StringVar(&echo[1], "tcp-direct", "", "ADDRESS:PORT")
	if err := fs.Parse(args); err != nil {
		return err
	}
	body := bytes.Repeat([]byte("0123456789abcdef"), bodySize/16)
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Write(body)
	})
	ended := make(chan error, 4)
	for _, address := range web {
		if address != "" {
			go func() { ended <- http.ListenAndServe(address, handler) }()
		}
	}
	for _, address := range echo {
		if address == "" {
			continue
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		go func() { ended <- giveBack(l) }()
	}
	return <-ended
}

func giveBack(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			// Not io.Copy, which would splice: the meshed server would not notice, the
			// direct one would be of another kind than servers are.
			buf := make([]byte, 4096)
			for {
				n, err := conn.Read(buf)
				if err != nil {
					return
				}
				if _, err := conn.Write(buf[:n]); err != nil {
					return
				}
			}
		}()
	}
}
