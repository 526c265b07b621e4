package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// hold keeps one connection and says something on it for every line of its standard input:
// hold http URL, or hold tcp ADDRESS:PORT for a server that speaks first. What came back is
// told line by line. hold until-end ADDRESS:PORT says nothing; it tells what the server said
// first and, when the connection ends, how.
func hold(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errUsage
	}
	lines := bufio.NewScanner(os.Stdin)
	switch args[0] {
	case "http":
		return holdHTTP(ctx, args[1], lines)
	case "tcp":
		return holdTCP(ctx, args[1], lines)
	case "until-end":
		return holdUntilEnd(ctx, args[1])
	}
	return errUsage
}

// holdHTTP fails a request that would need a second connection.
func holdHTTP(ctx context.Context, url string, lines *bufio.Scanner) error {
	dialed := false
	client := &http.Client{Timeout: patience, Transport: &http.Transport{
		MaxConnsPerHost: 1,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if dialed {
				return nil, errors.New("the connection is gone")
			}
			dialed = true
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}}
	for lines.Scan() {
		if err := tell(ask(ctx, client, http.MethodGet, url)); err != nil {
			return err
		}
	}
	return lines.Err()
}

func holdTCP(ctx context.Context, address string, lines *bufio.Scanner) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return tell(answer{Error: reason(err)})
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := in.ReadString('\n'); err != nil {
		return tell(answer{Error: reason(err)})
	}
	for lines.Scan() {
		_ = conn.SetDeadline(time.Now().Add(patience))
		fmt.Fprintln(conn, lines.Text())
		echo, err := in.ReadString('\n')
		if err != nil {
			return tell(answer{Error: reason(err)})
		}
		if err := tell(answer{Body: strings.TrimSuffix(echo, "\n")}); err != nil {
			return err
		}
	}
	return lines.Err()
}

func holdUntilEnd(ctx context.Context, address string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return tell(answer{Error: reason(err)})
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		conn.Close()
	}()
	in := bufio.NewReader(conn)
	greeting, err := in.ReadString('\n')
	if err == nil {
		if err := tell(answer{Body: strings.TrimSuffix(greeting, "\n")}); err != nil {
			return err
		}
		_, err = in.ReadString('\n')
	}
	return tell(answer{Error: reason(err)})
}
