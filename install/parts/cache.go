package parts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A cache is a directory of unpacked parts, each in a directory NAME-VERSION-SHA8
// that appears by a rename when it is complete, with NAME-VERSION-SHA8.lock
// beside it for whoever fills it.
type cache struct {
	dir string
	// shared is another cache, root's, in which only to look; or "".
	shared string
}

// systemCache is root's cache. Root's parts are kept where every user can reach
// them, unlike in root's home, because sidecars and examples run them as other
// users; and those users' own processes may run what they find there.
const systemCache = "/var/cache/heddle/parts"

// ownCache is where this process keeps what it obtains: $XDG_CACHE_HOME when
// set, root's systemCache, else ~/.cache.
func ownCache() (cache, error) {
	if dir := os.Getenv("XDG_CACHE_HOME"); filepath.IsAbs(dir) {
		return cache{filepath.Join(dir, "heddle", "parts"), systemCache}, nil
	}
	// A user namespace's root is not root: it may not write there.
	if os.Geteuid() == 0 && unix.Access(filepath.Dir(filepath.Dir(systemCache)), unix.W_OK) == nil {
		return cache{dir: systemCache}, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return cache{}, fmt.Errorf("find a cache directory: set XDG_CACHE_HOME or HOME")
	}
	return cache{filepath.Join(home, ".cache", "heddle", "parts"), systemCache}, nil
}

// Dir is the directory in which this process keeps the parts that it obtains.
func Dir() (string, error) {
	c, err := ownCache()
	return c.dir, err
}

// A manifest stands in each unpacked part; its presence and agreement with the
// files show that the part is whole.
type manifest struct {
	Programs map[string]int64 // path within the part: size in bytes
}

const manifestFile = "heddle-part.json"

// find returns the directory of a complete part.
func (c cache) find(key string) (string, bool) {
	dir := filepath.Join(c.dir, key)
	data, err := os.ReadFile(filepath.Join(dir, manifestFile))
	if err != nil {
		return "", false
	}
	var m manifest
	if json.Unmarshal(data, &m) != nil || len(m.Programs) == 0 {
		return "", false
	}
	for path, size := range m.Programs {
		info, err := os.Lstat(filepath.Join(dir, path))
		if err != nil || !info.Mode().IsRegular() || info.Size() != size || info.Mode()&0o111 == 0 {
			return "", false
		}
	}
	return dir, true
}

// findAny looks in our own cache and in root's, if that is really root's.
func (c cache) findAny(key string) (string, bool) {
	if dir, ok := c.find(key); ok {
		return dir, true
	}
	info, err := os.Lstat(c.shared)
	if err != nil || !info.IsDir() || info.Mode()&0o022 != 0 {
		return "", false
	}
	// In a user namespace root's files show the overflow uid.
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || (st.Uid != 0 && st.Uid != overflowUID()) {
		return "", false
	}
	return cache{dir: c.shared}.find(key)
}

func overflowUID() uint32 {
	var id uint32 = 65534
	if data, err := os.ReadFile("/proc/sys/kernel/overflowuid"); err == nil {
		fmt.Sscan(string(data), &id)
	}
	return id
}

// obtain returns the directory of part key, calling fill in an empty directory
// to make it when it is not there. Only one process fills; others wait for it.
// fill gets a scratch directory too, which survives a failure, so that finished
// downloads are not repeated; both are on the cache's file system.
func (c cache) obtain(ctx context.Context, key string, say *progress, fill func(dir, scratch string) (manifest, error)) (string, error) {
	if dir, ok := c.findAny(key); ok {
		return dir, nil
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return "", fmt.Errorf("make the cache directory: %w (XDG_CACHE_HOME names another place)", err)
	}
	unlock, err := c.lock(ctx, key, say)
	if err != nil {
		return "", err
	}
	defer unlock()
	if dir, ok := c.find(key); ok {
		return dir, nil // somebody else did it meanwhile
	}
	final, partial, scratch := filepath.Join(c.dir, key), filepath.Join(c.dir, key+".partial"), filepath.Join(c.dir, key+".download")
	// What is there is half made or damaged. We hold the lock.
	if err := errors.Join(os.RemoveAll(partial), os.RemoveAll(final)); err != nil {
		return "", fmt.Errorf("clear damaged %s: %w", key, err)
	}
	if err := errors.Join(os.Mkdir(partial, 0o755), os.MkdirAll(scratch, 0o755)); err != nil {
		return "", fmt.Errorf("make %s: %w", key, err)
	}
	defer os.RemoveAll(partial)
	m, err := fill(partial, scratch)
	if err != nil {
		return "", err
	}
	if err := commit(partial, final, m); err != nil {
		return "", fmt.Errorf("keep %s: %w", key, err)
	}
	os.RemoveAll(scratch)
	return final, nil
}

// commit writes the manifest and moves the finished directory to its place.
func commit(partial, final string, m manifest) error {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(partial, manifestFile), data, 0o644); err != nil {
		return err
	}
	return os.Rename(partial, final)
}

// measure makes the manifest of the programs in dir and makes them executable.
func measure(dir string, programs ...string) (manifest, error) {
	m := manifest{Programs: map[string]int64{}}
	for _, program := range programs {
		path := filepath.Join(dir, program)
		info, err := os.Lstat(path)
		if err == nil && !info.Mode().IsRegular() {
			err = fs.ErrInvalid
		}
		if err != nil {
			return m, fmt.Errorf("find the program %s: %w", program, err)
		}
		if err := os.Chmod(path, 0o755); err != nil {
			return m, err
		}
		m.Programs[program] = info.Size()
	}
	return m, nil
}

// lock takes the part's lock file, which stays behind, as removing it would race.
func (c cache) lock(ctx context.Context, key string, say *progress) (unlock func(), err error) {
	path := filepath.Join(c.dir, key+".lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the cache: %w", err)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			say.set("")
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		say.set("waiting for another process that obtains it")
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("wait for another process to obtain %s: %w", key, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
