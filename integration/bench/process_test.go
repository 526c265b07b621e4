package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ownCPU is the processor time of this process so far.
func ownCPU(b *testing.B) time.Duration {
	b.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// cpuOf is the processor time of all threads of processes so far. It is exact, where
// /proc/PID/stat counts in steps of 10 ms; a thread that ended is forgotten, but Envoy's
// do not end.
func cpuOf(b *testing.B, pids ...int) time.Duration {
	b.Helper()
	var sum time.Duration
	for _, pid := range pids {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		if err != nil || len(threads) == 0 {
			b.Fatalf("process %d: no threads (%v)", pid, err)
		}
		for _, path := range threads {
			text, err := os.ReadFile(path)
			if err != nil {
				b.Fatal(err)
			}
			var running int64
			if _, err := fmt.Sscan(string(text), &running); err != nil {
				b.Fatalf("%s: %v", path, err)
			}
			sum += time.Duration(running)
		}
	}
	return sum
}

// memoryOf is a process's resident memory in MiB: all of it, and what is its own and not
// pages of files, which all processes of one program share.
func memoryOf(b *testing.B, pid int) (resident, anonymous float64) {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		var kib float64
		switch name {
		case "VmRSS", "RssAnon":
			if _, err := fmt.Sscan(value, &kib); err != nil {
				b.Fatalf("%s: %v", line, err)
			}
		}
		switch name {
		case "VmRSS":
			resident = kib / 1024
		case "RssAnon":
			anonymous = kib / 1024
		}
	}
	return resident, anonymous
}

// ownMemory is what this process uses of its heap and stacks, in bytes, without garbage.
func ownMemory() (heap, stacks float64) {
	runtime.GC()
	runtime.GC() // what the first one finalised
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapInuse), float64(m.StackInuse)
}
