package bench

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// loadResult is what a load came to, in microseconds.
type loadResult struct {
	Requests      int
	Seconds       float64
	P50, P90, P99 float64
}

// client is the configuration of a load.
type client struct {
	address     *net.TCPAddr
	tcp         bool
	rate        int // requests a second in all; 0: as fast as answers come
	connections int
	length      time.Duration
}

// load calls a server over a fixed number of connections. It says "true" when all of them
// are warm, begins when it is told anything, and then tells a loadResult. With --rate a
// request's latency counts from when it was due, not from when it was sent: a stall is
// felt by all requests that it delays.
func load(args []string) error {
	fs := flag.NewFlagSet("load", flag.ContinueOnError)
	to := fs.String("to", "", "HOST:PORT")
	uid := fs.Int("uid", 0, "user to become when the name is resolved; capture lets the proxy's pass")
	c := client{}
	fs.BoolVar(&c.tcp, "tcp", false, "64 bytes there and back, in place of HTTP")
	fs.IntVar(&c.rate, "rate", 0, "requests a second; 0: the next one when the last one is answered")
	fs.IntVar(&c.connections, "connections", 16, "connections")
	fs.DurationVar(&c.length, "for", time.Second, "how long")
	if err := fs.Parse(args); err != nil {
		return err
	}
	var err error
	if c.address, err = net.ResolveTCPAddr("tcp4", *to); err != nil {
		return err
	}
	if *uid != 0 {
		if err := syscall.Setuid(*uid); err != nil {
			return err
		}
	}
	result, err := c.run()
	if err != nil {
		return fmt.Errorf("%s: %w", *to, err)
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

func (c client) run() (*loadResult, error) {
	begin := make(chan time.Time)
	warm := make(chan error, c.connections)
	times := make([][]time.Duration, c.connections)
	errs := make([]error, c.connections)
	var group sync.WaitGroup
	for i := range c.connections {
		group.Go(func() {
			exchange, err := c.connect()
			warm <- err
			if err != nil {
				return
			}
			times[i], errs[i] = c.work(i, <-begin, exchange)
		})
	}
	for range c.connections {
		if err := <-warm; err != nil {
			return nil, err
		}
	}
	fmt.Println(true)
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return nil, err
	}
	now := time.Now()
	for range c.connections {
		begin <- now
	}
	group.Wait()
	took := time.Since(now)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	all := slices.Sorted(slices.Values(slices.Concat(times...)))
	return &loadResult{
		Requests: len(all), Seconds: took.Seconds(),
		P50: micros(quantile(all, .5)), P90: micros(quantile(all, .9)), P99: micros(quantile(all, .99)),
	}, nil
}

// work is one connection's share of the load.
func (c client) work(i int, begin time.Time, exchange func() error) ([]time.Duration, error) {
	// A thread of its own with exact timers: Go's wake up to a millisecond late on an
	// idle machine, which is more than what is measured.
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return nil, err
	}
	var step time.Duration
	if c.rate > 0 {
		step = time.Duration(c.connections) * time.Second / time.Duration(c.rate)
	}
	var times []time.Duration
	end := begin.Add(c.length)
	due := begin.Add(step * time.Duration(i) / time.Duration(c.connections))
	for ; due.Before(end); due = due.Add(step) {
		if c.rate == 0 {
			due = time.Now()
		} else if err := sleepUntil(due); err != nil {
			return nil, err
		}
		if err := exchange(); err != nil {
			return nil, err
		}
		times = append(times, time.Since(due))
	}
	return times, nil
}

func sleepUntil(due time.Time) error {
	for {
		left := time.Until(due)
		if left <= 0 {
			return nil
		}
		t := unix.NsecToTimespec(int64(left))
		if err := unix.Nanosleep(&t, nil); err != nil && err != unix.EINTR {
			return err
		}
	}
}

// socket is a blocking connection: no runtime stands between it and the clock.
type socket int

func (s socket) Read(p []byte) (int, error) {
	n, err := unix.Read(int(s), p)
	for err == unix.EINTR {
		n, err = unix.Read(int(s), p)
	}
	if err == nil && n == 0 && len(p) > 0 {
		err = io.EOF
	}
	return max(n, 0), err
}

func (s socket) Write(p []byte) (int, error) {
	n, err := unix.Write(int(s), p)
	for err == unix.EINTR {
		n, err = unix.Write(int(s), p)
	}
	return n, err
}

// connect opens a connection, warms it up, and gives what exchanges one message for
// another on it.
func (c client) connect() (exchange func() error, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	to := &unix.SockaddrInet4{Port: c.address.Port, Addr: [4]byte(c.address.IP.To4())}
	err = errors.Join(unix.Connect(fd, to), unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		// A server that is gone ends the load.
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}))
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	exchange = overHTTP(socket(fd))
	if c.tcp {
		exchange = overTCP(socket(fd))
	}
	for range 50 {
		if err := exchange(); err != nil {
			return nil, fmt.Errorf("warm up: %w", err)
		}
	}
	return exchange, nil
}

func overTCP(s socket) func() error {
	buf := make([]byte, 64)
	return func() error {
		if _, err := s.Write(buf); err != nil {
			return err
		}
		_, err := io.ReadFull(s, buf)
		return err
	}
}

func overHTTP(s socket) func() error {
	in := bufio.NewReader(s)
	request := []byte("GET / HTTP/1.1\r\nHost: api\r\nUser-Agent: bench\r\n\r\n")
	return func() error {
		if _, err := s.Write(request); err != nil {
			return err
		}
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			return err
		}
		n, err := io.Copy(io.Discard, r.Body)
		if err == nil && (r.StatusCode != http.StatusOK || n != bodySize) {
			err = errors.New("answered " + strconv.Itoa(r.StatusCode) + " with " + strconv.FormatInt(n, 10) + " bytes")
		}
		return err
	}
}
