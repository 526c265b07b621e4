package cni

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// NodeConfig is where a node's runtime has its plugins, and what ours is told.
type NodeConfig struct {
	BinDir, ConfDir string // as we see them
	HostConfDir     string // ConfDir as the plugin sees it, on the node itself
	ConfFile        string // the configuration to chain to, in ConfDir; "" = the first, which the runtime takes
	Program         string // path of what is copied
	SkipNamespaces  []string

	Server string // URL of the API server, as the node reaches it
	CA     []byte // of its certificate, in PEM
	// Token gives a token for the plugin, and when it expires.
	Token func(context.Context) (token string, expires time.Time, err error)

	Log *slog.Logger
}

const (
	kubeconfigName = Name + ".kubeconfig" // no runtime takes that for a configuration
	lookAgain      = 10 * time.Second     // what no event told of
)

// Node keeps the plugin in place on a node: program, kubeconfig and its element in the
// configuration, in this order, since pods fail to start with the last without the others.
type Node struct {
	config  NodeConfig
	program os.FileInfo // of the copy that we wrote
	token   string
	expires time.Time
	renew   time.Time
	inPlace atomic.Bool
	said    string // the last error, said once
}

// NewNode makes one. Nothing is written yet.
func NewNode(config NodeConfig) *Node { return &Node{config: config} }

// InPlace tells whether pods that start now are captured.
func (n *Node) InPlace() bool { return n.inPlace.Load() }

// Run puts the plugin in place, and again whenever somebody else changes what it needs. It
// leaves it there when the context ends: Remove takes it away.
func (n *Node) Run(ctx context.Context) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the node's folders: %w", err)
	}
	defer watcher.Close()
	for _, dir := range []string{n.config.BinDir, n.config.ConfDir} {
		if err := sweep(dir); err != nil {
			return err
		}
		if err := watcher.Add(dir); err != nil {
			return fmt.Errorf("watch %s: %w", dir, err)
		}
	}
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		n.keep(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-watcher.Events:
		case err := <-watcher.Errors:
			n.config.Log.Warn("watch the node's folders", "error", err) // some events were lost: look now
		}
	}
}

// keep does what is to be done, and says what became different.
func (n *Node) keep(ctx context.Context) {
	changed, err := n.put(ctx)
	n.inPlace.Store(err == nil)
	said := ""
	if err != nil {
		said = err.Error()
	}
	switch {
	case err != nil && said != n.said && ctx.Err() == nil:
		n.config.Log.Error("the plugin is not in place: pods of the mesh that start now are not captured, and refuse to run", "error", err)
	case len(changed) > 0:
		n.config.Log.Info("the plugin is in place", "written", changed)
	}
	n.said = said
}

// put writes what is missing or different, and says what.
func (n *Node) put(ctx context.Context) (changed []string, err error) {
	for _, step := range []func(context.Context) (string, error){n.putProgram, n.putKubeconfig, n.putConfig} {
		wrote, err := step(ctx)
		if err != nil {
			return changed, err
		}
		if wrote != "" {
			changed = append(changed, wrote)
		}
	}
	return changed, nil
}

func (n *Node) putProgram(context.Context) (string, error) {
	to := filepath.Join(n.config.BinDir, Name)
	is, err := os.Lstat(to)
	if err == nil && n.program != nil && os.SameFile(is, n.program) && is.Size() == n.program.Size() && is.ModTime().Equal(n.program.ModTime()) {
		return "", nil // what we wrote
	}
	in, err := os.Open(n.config.Program)
	if err != nil {
		return "", fmt.Errorf("the program to copy: %w", err)
	}
	defer in.Close()
	if err := replace(to, 0o755, in); err != nil {
		return "", err
	}
	n.program, err = os.Lstat(to)
	return to, err
}

// putKubeconfig writes how the plugin reaches the API server. The token is renewed at half
// of its life; while that fails, the plugin works on with the old one.
func (n *Node) putKubeconfig(ctx context.Context) (string, error) {
	if now := time.Now(); now.After(n.renew) {
		token, expires, err := n.config.Token(ctx)
		switch {
		case err == nil:
			n.token, n.expires, n.renew = token, expires, now.Add(expires.Sub(now)/2)
		case now.After(n.expires):
			return "", err
		default:
			n.config.Log.Warn("the plugin's token is not renewed", "error", err, "expires", n.expires)
		}
	}
	text, err := clientcmd.Write(api.Config{
		Clusters:       map[string]*api.Cluster{"cluster": {Server: n.config.Server, CertificateAuthorityData: n.config.CA}},
		AuthInfos:      map[string]*api.AuthInfo{Name: {Token: n.token}},
		Contexts:       map[string]*api.Context{Name: {Cluster: "cluster", AuthInfo: Name}},
		CurrentContext: Name,
	})
	if err != nil {
		return "", fmt.Errorf("write the plugin's kubeconfig: %w", err)
	}
	path := filepath.Join(n.config.ConfDir, kubeconfigName)
	if is, err := os.ReadFile(path); err == nil && bytes.Equal(is, text) {
		return "", nil
	}
	return path, replace(path, 0o600, bytes.NewReader(text))
}

// putConfig chains the plugin into the configuration that the runtime uses.
func (n *Node) putConfig(context.Context) (string, error) {
	path, err := n.configFile()
	if err != nil {
		return "", err
	}
	return edit(path, func(list []byte) ([]byte, error) {
		return chain(list, entry{Name, filepath.Join(n.config.HostConfDir, kubeconfigName), n.config.SkipNamespaces})
	})
}

func (n *Node) configFile() (string, error) {
	if n.config.ConfFile != "" {
		return filepath.Join(n.config.ConfDir, n.config.ConfFile), nil
	}
	files, err := configFiles(n.config.ConfDir)
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s has no configuration yet: the network's own plugin is not installed", n.config.ConfDir)
	}
	if err != nil {
		return "", err
	}
	return files[0], nil
}

// configFiles are the files that runtimes take for configurations, in their order.
func configFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("look for the network's configuration: %w", err)
	}
	var out []string
	for _, e := range entries {
		if slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(e.Name())) && !e.IsDir() {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	return out, nil
}

// Remove takes the plugin away: first out of every configuration, so that no pod needs it.
func (n *Node) Remove() error {
	n.inPlace.Store(false)
	files, err := configFiles(n.config.ConfDir)
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(text, []byte(Name)) {
			continue // it is not there, whatever else is wrong with the file
		}
		wrote, err := edit(path, unchain)
		errs = append(errs, err)
		if wrote != "" {
			n.config.Log.Info("the plugin is taken out", "file", wrote)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err // the others are still needed
	}
	for _, path := range []string{filepath.Join(n.config.ConfDir, kubeconfigName), filepath.Join(n.config.BinDir, Name)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
