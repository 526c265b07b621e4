package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/heddle-mesh/heddle/proxy/capture"
	"github.com/heddle-mesh/heddle/proxy/supervise"
)

// execRequest comes with the caller's standard input, output and error as descriptors:
// only the supervisor can start a process in a workload's network when that lies in a
// user namespace, and the process must still talk to the caller's terminal.
type execRequest struct {
	Workload string   `json:"workload"`
	Command  []string `json:"command"`
	Env      []string `json:"env"`
	Dir      string   `json:"dir"`
}

type execReply struct {
	Code  int    `json:"code"`
	Error string `json:"error,omitempty"`
}

// maxExec bounds an exec request, in bytes.
const maxExec = 128 << 10

// Exec runs a command in the network of a workload, with our standard streams, and gives
// its exit code.
func Exec(ctx context.Context, p Project, workload string, command []string, streams [3]*os.File) (int, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: p.path("exec.sock"), Net: "unix"})
	if err != nil {
		return 0, fmt.Errorf("project %s is not running: %w", p.Name, err)
	}
	defer conn.Close()
	// Closing the connection ends the command.
	defer context.AfterFunc(ctx, func() { conn.CloseWrite() })()
	dir, _ := os.Getwd()
	text, err := json.Marshal(execRequest{workload, command, os.Environ(), dir})
	if err != nil {
		return 0, err
	}
	if len(text) > maxExec {
		return 0, errors.New("command and environment are too long")
	}
	fds := unix.UnixRights(int(streams[0].Fd()), int(streams[1].Fd()), int(streams[2].Fd()))
	// The length first: a stream socket may cut a message anywhere.
	if _, _, err := conn.WriteMsgUnix(fmt.Appendf(nil, "%08d", len(text)), fds, nil); err != nil {
		return 0, err
	}
	if _, err := conn.Write(text); err != nil {
		return 0, err
	}
	var reply execReply
	if err := json.NewDecoder(conn).Decode(&reply); err != nil {
		return 0, fmt.Errorf("the supervisor of %s has ended: %w", p.Name, err)
	}
	if reply.Error != "" {
		return 0, errors.New(reply.Error)
	}
	return reply.Code, nil
}

// serveExec runs commands until the listener is closed, and returns when all have ended.
// The context ends them.
func (s *supervisor) serveExec(ctx context.Context, l *net.UnixListener) {
	var group sync.WaitGroup
	defer group.Wait()
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return
		}
		group.Go(func() {
			defer conn.Close()
			code, err := s.exec(ctx, conn)
			reply := execReply{Code: code}
			if err != nil {
				reply.Error = err.Error()
			}
			_ = json.NewEncoder(conn).Encode(reply) // the caller may be gone
		})
	}
}

// exec receives one request and runs it until its end or that of the connection.
func (s *supervisor) exec(ctx context.Context, conn *net.UnixConn) (code int, err error) {
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	request, files, err := receiveExec(conn)
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if err != nil {
		return 0, err
	}
	_ = conn.SetReadDeadline(time.Time{})
	ns, resolvconf, err := s.namespace(ctx, request.Workload)
	if err != nil {
		return 0, err
	}
	defer ns.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, conn) // ends when the caller does
		cancel()
	}()
	exec := capture.Exec{Argv: request.Command, Env: request.Env, Dir: request.Dir, Stdin: files[0], Stdout: files[1], Stderr: files[2]}
	if ns.Mode() != capture.Explicit {
		exec.ResolvConf = resolvconf
	}
	cmd, err := ns.Command(ctx, exec)
	if err != nil {
		return 0, err
	}
	if err := ns.Start(cmd); err != nil {
		return 0, err
	}
	return supervise.ExitCode(cmd.Wait()), nil
}

func receiveExec(conn *net.UnixConn) (request execRequest, files []*os.File, err error) {
	head, rights := make([]byte, 8), make([]byte, unix.CmsgSpace(3*4))
	n, rn, _, _, err := conn.ReadMsgUnix(head, rights)
	if err != nil {
		return request, nil, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:rn])
	if err != nil || len(messages) != 1 {
		return request, nil, errors.New("exec: no descriptors came along")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return request, nil, err
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
		files = append(files, os.NewFile(uintptr(fd), "stream"))
	}
	var size int
	if _, err := fmt.Sscanf(string(head[:n]), "%d", &size); err != nil || len(files) != 3 || size < 0 || size > maxExec {
		return request, files, errors.New("exec: malformed request")
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(conn, text); err != nil {
		return request, files, err
	}
	if err := json.Unmarshal(text, &request); err != nil {
		return request, files, fmt.Errorf("exec: %w", err)
	}
	if len(request.Command) == 0 {
		return request, files, errors.New("exec: no command given")
	}
	return request, files, nil
}

// namespace opens the network of a workload.
func (s *supervisor) namespace(ctx context.Context, name string) (*capture.Namespace, []byte, error) {
	s.mu.Lock()
	processes := slices.Clone(s.processes)
	s.mu.Unlock() // the sidecar may be slow to answer
	var known []string
	for _, m := range processes {
		if m.workload == "" {
			continue
		}
		if m.workload != name {
			known = append(known, m.workload)
			continue
		}
		if s.Capture == capture.Explicit {
			return capture.HostNamespace(s.Log), nil, nil
		}
		status, err := sidecarStatus(ctx, m.status)
		if err != nil {
			return nil, nil, fmt.Errorf("workload %s does not answer: %w", name, err)
		}
		ns, err := capture.OpenNamespace(status.NetNS, s.Capture, s.Log)
		return ns, []byte(status.Resolvconf), err
	}
	return nil, nil, fmt.Errorf("there is no workload %q; there are %q", name, known)
}
