package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	identityv1 "github.com/heddle-mesh/heddle/identity/api"
	"github.com/heddle-mesh/heddle/proxy/capture"
	"github.com/heddle-mesh/heddle/proxy/sidecar"
	"github.com/heddle-mesh/heddle/proxy/supervise"
)

// sidecar makes the process of a workload's sidecar, and the path of its status socket.
func (s *supervisor) sidecar(ctx context.Context, w workload) (supervise.Spec, string, error) {
	dir := s.Project.path("sidecars", w.Name)
	data := s.Project.path("data", w.Name)
	for _, d := range []string{dir, data} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return supervise.Spec{}, "", err
		}
	}
	if err := chown(data, w.Service.User); err != nil {
		return supervise.Spec{}, "", err
	}
	token := filepath.Join(dir, "token")
	if err := s.token(ctx, w, token); err != nil {
		return supervise.Spec{}, "", fmt.Errorf("make a join token: %w", err)
	}
	status := filepath.Join(dir, "status.sock")
	args := []string{
		"sidecar", "--service", w.Service.Service, "--name", w.Name, "--trust-domain", s.Config.TrustDomain,
		"--control-plane", "unix:" + s.Project.ControlPlane(), "--control-plane", agentAddress,
		"--token-file", token, "--state", dir, "--status", status, "--capture", s.Capture.String(),
		"--drain", "1s", // a laptop's developer waits for it at every "down"
	}
	args, files, names, err := s.sidecarNetwork(args, w)
	if err != nil {
		return supervise.Spec{}, "", err
	}
	names["STATE"] = data
	command, env, err := s.program(w, names)
	if err != nil {
		return supervise.Spec{}, "", err
	}
	args = append(append(args, "--"), command...)
	if s.Envoy != "" {
		env = append(env, "HEDDLE_ENVOY="+s.Envoy)
	}
	spec := s.command(w.Name, args, env, files)
	spec.Ready = func(ctx context.Context) error { return sidecarReady(ctx, status) }
	return spec, status, nil
}

// sidecarNetwork adds the flags for ports, zone and published sockets. Names are what
// the command may refer to.
func (s *supervisor) sidecarNetwork(args []string, w workload) (_ []string, files []*os.File, names map[string]string, err error) {
	names = map[string]string{"BIN": s.Bin}
	for part, dir := range s.Parts {
		names["PART_"+part] = dir
	}
	if w.Zone != "" {
		args = append(args, "--zone", w.Zone)
	}
	if w.Service.User != "" && capture.MachineRoot() {
		args = append(args, "--user", w.Service.User)
	}
	if w.Service.Ready != "" {
		args = append(args, "--ready-http", w.Service.Ready)
	}
	if s.Config.Jaeger {
		args = append(args, "--otlp", otlpAddress)
	}
	for _, k := range slices.Sorted(maps.Keys(w.Service.Labels)) {
		args = append(args, "--label", k+"="+w.Service.Labels[k])
	}
	local := map[uint16]uint16{}
	for _, port := range w.Service.Ports {
		flag, at := strconv.Itoa(int(port)), port
		if s.Capture == capture.Explicit {
			if at, err = freePort(); err != nil {
				return nil, nil, nil, err
			}
			flag += "=" + strconv.Itoa(int(at))
		}
		local[port] = at
		names["PORT_"+strconv.Itoa(int(port))] = strconv.Itoa(int(at))
		args = append(args, "--port", flag)
	}
	for _, use := range w.Service.Uses {
		names[use] = use
		if s.Capture == capture.Explicit {
			at, err := freePort()
			if err != nil {
				return nil, nil, nil, err
			}
			names[use] = "127.0.0.1:" + strconv.Itoa(int(at))
			args = append(args, "--upstream", use+"="+names[use])
		}
	}
	if s.Capture == capture.Explicit {
		args = append(args, "--metrics", "127.0.0.1:0")
	}
	if w.First {
		args, files = s.published(args, w, local)
	}
	return args, files, names, nil
}

func (s *supervisor) published(args []string, w workload, local map[uint16]uint16) ([]string, []*os.File) {
	var files []*os.File
	for _, p := range w.Service.Publish {
		address, port, err := parsePublish(p)
		if err != nil {
			continue // validated long ago
		}
		if at, ok := local[port]; ok {
			port = at
		}
		from := address
		if f := s.Files[address]; f != nil {
			from = "fd:" + strconv.Itoa(3+len(files))
			files = append(files, f)
		}
		args = append(args, "--publish", from+"="+strconv.Itoa(int(port)))
	}
	return args, files
}

// program gives a workload's command and environment, with all names replaced.
func (s *supervisor) program(w workload, names map[string]string) (command, env []string, err error) {
	var errs []error
	replace := func(text string) string {
		out, err := expand(text, names)
		errs = append(errs, err)
		return out
	}
	for _, arg := range w.Service.Command {
		command = append(command, replace(arg))
	}
	for _, k := range slices.Sorted(maps.Keys(w.Service.Env)) {
		env = append(env, k+"="+replace(w.Service.Env[k]))
	}
	env = append(env, "HEDDLE_WORKLOAD="+w.Name, "HEDDLE_ZONE="+w.Zone)
	return command, env, errors.Join(errs...)
}

// token gets a join token for a workload, to be used by our own user only.
func (s *supervisor) token(ctx context.Context, w workload, file string) error {
	conn, err := s.Project.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	uid := uint32(os.Geteuid())
	reply, err := identityv1.NewIdentityClient(conn).CreateToken(ctx, &identityv1.CreateTokenRequest{
		Namespace: "default", Service: w.Service.Service, Uid: &uid,
		Ttl: durationpb.New(365 * 24 * time.Hour), // a sidecar may be away for long and come back
	})
	if err != nil {
		return err
	}
	return os.WriteFile(file, []byte(reply.JoinToken), 0o600)
}

// sidecarReady asks a sidecar whether its program takes requests.
func sidecarReady(ctx context.Context, socket string) error {
	status, err := sidecarStatus(ctx, socket)
	if err != nil {
		return err
	}
	if !status.Ready {
		return errors.New("its program is not ready")
	}
	return nil
}

func sidecarStatus(ctx context.Context, socket string) (*sidecar.Status, error) {
	req, err := newRequest(ctx, "GET", "/status", nil)
	if err != nil {
		return nil, err
	}
	resp, err := unixClient(socket).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	status := new(sidecar.Status)
	return status, json.NewDecoder(resp.Body).Decode(status)
}

// relative gives a path of the configuration's, which is relative to its file.
func (s *supervisor) relative(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(s.Config.dir, path)
}
