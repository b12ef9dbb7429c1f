package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// maxScrapes is how many scrapes are answered at a time; others get status 503.
const maxScrapes = 4

// Handler answers scrapes with what a registry gathers, four at a time. It says
// nothing to methods other than GET and HEAD. Whoever may ask it learns who the service
// is and how much it sends, so it is for loopback or for an address that is guarded.
func Handler(from prometheus.Gatherer) http.Handler {
	scrape := promhttp.HandlerFor(from, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
			return
		}
		scrape.ServeHTTP(w, r)
	})
}
