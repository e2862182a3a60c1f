; Read by `sparse`: the Storm version here must equal that of `storm version`, and the jar holds nothing but src/.
(defproject counting "0.1.0"
  :description "Real-time shopper behaviour and orders, in pure Python on Apache Storm"
  :min-lein-version "2.0.0"
  :resource-paths ["_resources"]
  :target-path "_build"
  ; storm-clojure asks for a jar that is not on Maven Central, and nothing here needs it.
  :managed-dependencies [[org.apache.storm/storm-clojure "2.8.3"
                          :exclusions [org.clojars.bipinprasad/carbonite]]]
  :dependencies [[org.apache.storm/storm-core "2.8.3"]]
  ; The uberjar carries no Storm (the cluster has it); :base would add a REPL.
  :profiles {:uberjar {:dependencies ^:replace []}
             :base {}})
