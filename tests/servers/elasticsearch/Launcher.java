package dev.tidewarden.elasticsearch;

import java.nio.file.Path;
import java.util.HashMap;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.regex.Pattern;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.node.InternalSettingsPreparer;
import org.elasticsearch.node.Node;
import org.elasticsearch.plugins.PluginsLoader;

/**
 * Starts one Elasticsearch node from the jars of Maven Central, told things as the official image is: by
 * {@code elasticsearch.yml} in {@code es.path.conf}, by environment variables ({@code discovery.type=single-node}
 * or {@code ES_SETTING_DISCOVERY_TYPE=single-node}), by {@code -Ename=value}; what comes later wins.
 */
public final class Launcher {
    private static final Pattern DOTTED = Pattern.compile("[a-z0-9_]+(\\.[a-zA-Z0-9_-]+)+");
    private static final String PREFIX = "ES_SETTING_";

    private Launcher() {}

    public static void main(String[] arguments) throws Exception {
        LogConfigurator.configureESLogging();
        LogConfigurator.configureWithoutConfig(Settings.builder().put("logger.level", "WARN").build());
        Path home = Path.of(System.getProperty("es.path.home"));
        Environment prepared =
                InternalSettingsPreparer.prepareEnvironment(
                        Settings.builder().put("path.home", home).build(),
                        told(System.getenv(), arguments),
                        Path.of(System.getProperty("es.path.conf")),
                        () -> System.getenv().getOrDefault("HOSTNAME", "elasticsearch"));
        PluginsLoader loader =
                PluginsLoader.createPluginsLoader(
                        PluginsLoader.loadModulesBundles(prepared.modulesDir()),
                        PluginsLoader.loadPluginsBundles(prepared.pluginsDir()),
                        Map.of(),
                        false);
        Node node = new Node(prepared, loader);
        CountDownLatch closed = new CountDownLatch(1);
        Runtime.getRuntime()
                .addShutdownHook(
                        new Thread(
                                () -> {
                                    try {
                                        node.close();
                                    } catch (Exception error) {
                                        System.err.println("the node did not close in order: " + error);
                                    }
                                    closed.countDown();
                                }));
        node.start();
        closed.await();
    }

    private static Map<String, String> told(Map<String, String> environment, String[] arguments) {
        Map<String, String> settings = new HashMap<>();
        environment.forEach(
                (name, value) -> {
                    if (DOTTED.matcher(name).matches()) {
                        settings.put(name, value);
                    } else if (name.startsWith(PREFIX)) {
                        String dotted = name.substring(PREFIX.length()).toLowerCase(Locale.ROOT);
                        // The image's rule: one underscore is a dot, two are an underscore.
                        settings.put(dotted.replace("__", "\0").replace('_', '.').replace('\0', '_'), value);
                    }
                });
        for (String argument : arguments) {
            int equals = argument.indexOf('=');
            if (!argument.startsWith("-E") || equals < 0) {
                throw new IllegalArgumentException("not understood: " + argument + "; settings are given as -Ename=value");
            }
            settings.put(argument.substring(2, equals), argument.substring(equals + 1));
        }
        // Settings of x-pack (security off, say) are for a module that is not among these jars: a node refuses unknown names.
        settings.keySet().removeIf(name -> name.startsWith("xpack.") || name.startsWith("ingest.geoip"));
        return settings;
    }
}
