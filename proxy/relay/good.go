package relay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/heddle-mesh/heddle/identity/statefile"
)

// goodFile is the last good configuration in a relay's folder: a SHA-256 of what
// follows, then one size-delimited DeltaDiscoveryResponse a type.
const goodFile = "good.pb"

// maxGoodFile bounds what is read back, in bytes: a hundred times a big configuration.
const maxGoodFile = 256 << 20

// Held is one resource of the last good configuration.
type Held struct{ Type, Name, Version string }

// resource is a held resource with its message.
type resource struct {
	version string
	message *anypb.Any
}

// good is the last good configuration.
type good struct {
	path string
	log  *slog.Logger

	saving  sync.Mutex // held by who writes the file; guards what follows
	failing bool       // the last save failed
	saved   int        // the change that the file has

	mu     sync.Mutex // guards what follows
	types  map[string]map[string]resource
	change int           // counts
	dirty  chan struct{} // holds an element when the disk is behind
}

// openGood reads the configuration that an earlier run left. A damaged file is as good
// as none: the control plane has it all.
func openGood(dir string, log *slog.Logger) (*good, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("last good configuration: %w", err)
	}
	g := &good{
		path: filepath.Join(dir, goodFile), log: log,
		types: map[string]map[string]resource{}, dirty: make(chan struct{}, 1),
	}
	responses, err := readGood(g.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		log.Warn("the last good configuration cannot be used", "file", g.path, "error", err)
		return g, nil
	}
	for _, r := range responses {
		g.apply(r)
	}
	g.saved = g.change
	return g, nil
}

func readGood(path string) ([]*discoveryv3.DeltaDiscoveryResponse, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxGoodFile+1))
	if err != nil {
		return nil, err
	}
	return decodeGood(data)
}

func decodeGood(data []byte) ([]*discoveryv3.DeltaDiscoveryResponse, error) {
	if len(data) < sha256.Size || len(data) > maxGoodFile {
		return nil, fmt.Errorf("%d bytes are too few or too many", len(data))
	}
	body := data[sha256.Size:]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], data[:sha256.Size]) {
		return nil, errors.New("its checksum is wrong")
	}
	var out []*discoveryv3.DeltaDiscoveryResponse
	for r := bytes.NewReader(body); r.Len() > 0; {
		m := new(discoveryv3.DeltaDiscoveryResponse)
		if err := (protodelim.UnmarshalOptions{MaxSize: -1}).UnmarshalFrom(r, m); err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

// apply takes over what a response has set and removed.
func (g *good) apply(r *discoveryv3.DeltaDiscoveryResponse) {
	g.mu.Lock()
	defer g.mu.Unlock()
	held := g.types[r.TypeUrl]
	if held == nil {
		held = map[string]resource{}
		g.types[r.TypeUrl] = held
	}
	for _, res := range r.Resources {
		held[res.Name] = resource{res.Version, res.Resource}
	}
	for _, name := range r.RemovedResources {
		delete(held, name)
	}
	g.changed()
}

// forget drops names that Envoy has unsubscribed from.
func (g *good) forget(typ string, names []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, name := range names {
		delete(g.types[typ], name)
	}
	g.changed()
}

func (g *good) changed() {
	g.change++
	g.wake()
}

func (g *good) version() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.change
}

func (g *good) wake() {
	select {
	case g.dirty <- struct{}{}:
	default:
	}
}

// held lists everything in order.
func (g *good) held() []Held {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []Held
	for _, typ := range slices.Sorted(maps.Keys(g.types)) {
		for _, name := range slices.Sorted(maps.Keys(g.types[typ])) {
			out = append(out, Held{typ, name, g.types[typ][name].version})
		}
	}
	return out
}

// messages gives the resources of a type.
func (g *good) messages(typ string) map[string]*anypb.Any {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make(map[string]*anypb.Any, len(g.types[typ]))
	for name, r := range g.types[typ] {
		out[name] = r.message
	}
	return out
}

// versions gives the versions of a type's resources.
func (g *good) versions(typ string) map[string]string {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make(map[string]string, len(g.types[typ]))
	for name, r := range g.types[typ] {
		out[name] = r.version
	}
	return out
}

// run keeps the file equal to the memory until the context is done: bursts of changes
// become one write, and a full disk is tried again. The last state is written at the end.
func (g *good) run(ctx context.Context) {
	for {
		select {
		case <-g.dirty:
		case <-ctx.Done():
			select {
			case <-g.dirty:
				g.save()
			default:
			}
			return
		}
		wait := 200 * time.Millisecond
		if !g.save() {
			wait = 5 * time.Second
			g.wake()
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// save writes the newest state, unless the file has it, and reports whether it has now. Of
// a disk that stays full it tells once, and once more when it has space again.
func (g *good) save() bool {
	g.saving.Lock()
	defer g.saving.Unlock()
	if g.version() == g.saved {
		return true
	}
	data, change, err := g.encode()
	if err == nil {
		err = statefile.Write(g.path, data)
	}
	if err == nil {
		g.saved = change
	}
	switch {
	case err != nil && !g.failing:
		g.log.Warn("the last good configuration is not saved: a restart needs the control plane", "file", g.path, "error", err)
	case err == nil && g.failing:
		g.log.Info("the last good configuration is saved again", "file", g.path)
	}
	g.failing = err != nil
	return err == nil
}

// encode gives the state as the file has it, and the change that made it.
func (g *good) encode() (data []byte, change int, err error) {
	var body bytes.Buffer
	body.Write(make([]byte, sha256.Size))
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, typ := range slices.Sorted(maps.Keys(g.types)) {
		m := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: typ}
		for name, r := range g.types[typ] {
			m.Resources = append(m.Resources, &discoveryv3.Resource{Name: name, Version: r.version, Resource: r.message})
		}
		if _, err := protodelim.MarshalTo(&body, m); err != nil {
			return nil, g.change, err
		}
	}
	sum := sha256.Sum256(body.Bytes()[sha256.Size:])
	copy(body.Bytes(), sum[:])
	return body.Bytes(), g.change, nil
}
