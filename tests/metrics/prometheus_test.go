package metrics_test

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func escape(expr string) string { return url.QueryEscape(expr) }

// launch runs Prometheus on a free port of loopback until the test ends, and returns
// its address. Another program may take the port meanwhile, so it is tried again.
func launch(t *testing.T, config, dir string) string {
	t.Helper()
	for try := range 3 {
		at, err := freePort()
		if err != nil {
			t.Fatal(err)
		}
		log, err := os.Create(filepath.Join(dir, fmt.Sprintf("log%d", try)))
		if err != nil {
			t.Fatal(err)
		}
		server := exec.Command("prometheus", "--config.file="+config, "--web.listen-address="+at,
			"--storage.tsdb.path="+filepath.Join(dir, fmt.Sprintf("data%d", try)), "--query.lookback-delta=30s", "--log.level=warn")
		server.Stdout, server.Stderr = log, log
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = server.Wait() // killed in the end
		}()
		stop := func() {
			_ = server.Process.Kill()
			<-ended
			log.Close()
		}
		if ready(at, ended) {
			t.Cleanup(stop)
			return "http://" + at
		}
		stop()
		if text, err := os.ReadFile(log.Name()); err == nil {
			t.Logf("Prometheus at %s is not ready:\n%s", at, text)
		}
	}
	t.Fatal("Prometheus does not start")
	return ""
}

// ready waits until Prometheus answers, or has ended.
func ready(at string, ended <-chan struct{}) bool {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		select {
		case <-ended:
			return false
		case <-time.After(50 * time.Millisecond):
		}
		if _, err := get("http://" + at + "/-/ready"); err == nil {
			return true
		}
	}
	return false
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
